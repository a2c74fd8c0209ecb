// The fused group norm on a GPU: sizes of blocks, memory, and the order of the kernels.
#pragma once

#include <torch/types.h>

#include <array>

namespace tch_ext {

// One or two tensors [B, C_i, H, W] with channels last, f32 or bf16; the second may be undefined.
using Inputs = std::array<torch::Tensor, 2>;

// Tables f32 [1 or B, C]; the offset may be undefined.
struct Tables {
    torch::Tensor offset, gain, bias;
};

// What backward needs, f32 [B, C]: subtracted from x; reciprocal standard deviation; mean of each channel.
struct GpuStatistics {
    torch::Tensor centre, rstd, channel_mean;
};

struct GpuGradients {
    Inputs x;
    torch::Tensor offset, gain_and_bias; // f32 [B, C] and [2, B, C]
};

torch::Tensor norm_on_gpu(const Inputs &x, const Tables &tables, int64_t groups, double eps, bool silu, GpuStatistics &);

// dy is [B, C, H, W] with channels last; `passed`, which may be undefined, is added to the gradients of the inputs.
GpuGradients norm_backward_on_gpu(const Inputs &x, const Tables &tables, int64_t groups, bool silu, const GpuStatistics &,
                                  const torch::Tensor &dy, const Inputs &passed);

} // namespace tch_ext
