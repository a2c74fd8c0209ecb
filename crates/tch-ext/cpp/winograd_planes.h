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

// Where the weights of the convolution `c` are in f32 weights [out, in, 3, 3] of a layer; if `backward`, `c` is the
// convolution of the upstream gradient.
inline Weights weights_of(const Convolution &c, const at::Tensor &weights, bool backward) {
    const int64_t near = 9, far = 9 * weights.size(1);
    return {weights.const_data_ptr<float>(), backward ? far : near, backward ? near : far, backward};
}

// These weights transformed, [36, in, out] in f32 or bf16, in an order of this processor's.
at::Tensor planes_of(const Convolution &c, const at::Tensor &weights, bool backward, at::ScalarType kind);

// The convolution `c` of x, in f32 or bf16, with transformed weights, plus the f32 `bias` and `plus`, of the shape and type of
// the result; both may be undefined. Planes in bf16 are for x in bf16. Images are channels last.
at::Tensor convolve(const Convolution &c, const at::Tensor &x, const at::Tensor &planes, const at::Tensor &bias,
                    const at::Tensor &plus);

// The values of a tensor of float, or of bf16 (uint16_t); null if it is undefined.
template <typename T> const T *values_of(const at::Tensor &values) {
    return values.defined() ? static_cast<const T *>(values.const_data_ptr()) : nullptr;
}

// Whether transformed weights in bf16 are the fastest choice for images in bf16: where the processor multiplies bf16, but has
// no matrix unit, with which oneDNN's direct convolutions are faster.
bool planes_in_bf16_are_fastest();

} // namespace tch_ext
