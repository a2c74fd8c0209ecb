// A convolution by Winograd's algorithm in its two halves: weights are transformed, for training in every pass and for
// inference once, and images are convolved with the result.
#pragma once
#include "winograd_kernels.h"

#include <torch/types.h>

#include <memory>

namespace tch_ext {

// A multiple of the vector length of all processors.
constexpr int64_t CHANNELS = 16;

// The kernels of this processor.
const WinogradKernels &winograd_kernels();

inline auto work_of(int64_t size) { return std::make_unique_for_overwrite<float[]>(size); }

// Images [B, in, H, W] become [B, out, H, W].
inline Convolution shape_of(const at::Tensor &x, int64_t out) { return {x.size(0), x.size(2), x.size(3), x.size(1), out}; }

// The transformed weights [16, in, out] of the convolution `c`, for f32 weights [out, in, 3, 3] of the layer or, if
// `backward`, for the convolution of the upstream gradient.
at::Tensor planes_of(const Convolution &c, const at::Tensor &weights, bool backward);

// The same with its channels in pairs, [16, in / 2, out, 2] in bf16.
at::Tensor in_pairs(const at::Tensor &planes);

// The convolution `c` of f32 x with the transformed weights, plus `bias` and `plus`, of the shape of the result; both may be
// undefined. Images are channels last.
at::Tensor convolve(const Convolution &c, const at::Tensor &x, const at::Tensor &planes, const at::Tensor &bias,
                    const at::Tensor &plus);

// Whether transformed weights in bf16 are the fastest choice for images in bf16: where the processor multiplies bf16, but has
// no matrix unit, with which oneDNN's direct convolutions are faster.
bool planes_in_bf16_are_fastest();

} // namespace tch_ext
