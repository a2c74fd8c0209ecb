// 3x3 convolutions of stride 1 and padding 1 by Winograd's F(2x2, 3x3), following Lavin & Gray 2015 (arXiv 1509.09308):
// 16 multiplications for 4 pixels of the result instead of 36. f32, channels last, channels in multiples of 16.
// Compiled for several instruction sets; see winograd.cpp.
//
// Images are divided into tiles of 2x2 pixels, numbered across the batch, each with the 4x4 input pixels d around it.
// The result of a tile is A^T [(G g G^T) . (B^T d B)] A, where the product in brackets, summed over input channels, is
// a matrix product over many tiles for each of its 16 positions.
#pragma once

#include <cstdint>

namespace tch_ext {

// Images [batch, height, width, in] become [batch, height, width, out].
struct Convolution {
    int64_t batch, height, width, in, out;

    int64_t tile_rows() const { return (height + 1) / 2; }
    int64_t tile_columns() const { return (width + 1) / 2; }
    int64_t tiles() const { return batch * tile_rows() * tile_columns(); }
};

struct WinogradKernels {
    // Rows [begin, end) of u [16, in, out], G g G^T of each pair of channels. In the weights [.., .., 3, 3], those of
    // input channel i and output channel o start at `i * in_stride + o * out_stride`; `turned` by 180 degrees for the
    // convolution in backward. `work` holds 9 * out values.
    void (*transform_weights)(const Convolution &, const float *weights, int64_t in_stride, int64_t out_stride, bool turned,
                              float *u, int64_t begin, int64_t end, float *work);
    // Tiles [begin, end) of y, from x, u, the bias, and `plus` of the shape of y, which is added; either may be null. `work`
    // holds forward_work() values.
    void (*forward)(const Convolution &, const float *x, const float *u, const float *bias, const float *plus, float *y,
                    int64_t begin, int64_t end, float *work);
    // One of the four rows of positions of du [16, in, out], the gradient of u, for the input channels [begin, end),
    // from x and the gradient dy of y. Such parts do not share results. `work` holds weight_work() values.
    void (*weight_gradient)(const Convolution &, const float *x, const float *dy, float *du, int64_t row, int64_t begin,
                            int64_t end, float *work);
    // The gradients of the weights [out, in, 3, 3] of the input channels [begin, end): G^T du G.
    void (*restore_weights)(const Convolution &, const float *du, float *weights, int64_t begin, int64_t end);
};

// Tiles per matrix product in forward: a multiple of all kernels' rows, few enough to stay in the L2 cache, and enough
// that large weights are read rarely.
static inline int64_t tiles_at_once(const Convolution &c) {
    const int64_t fit = (1 << 13) / (c.in + c.out) / 12 * 12;
    return fit < 48 ? 48 : fit > 96 ? 96 : fit;
}

static inline int64_t forward_work(const Convolution &c) {
    return 16 * tiles_at_once(c) * (c.in + c.out) + (c.in > c.out ? c.in : c.out);
}

// Tiles per matrix product in weight_gradient: few enough that they and the sums stay in the L1 and L2 caches.
constexpr int64_t WEIGHT_TILES = 32;

static inline int64_t weight_work(const Convolution &c, int64_t channels) {
    return 4 * (WEIGHT_TILES * (channels + c.out) + channels * c.out) + (c.in > c.out ? c.in : c.out);
}

// WinogradKernels::forward for x, plus and y in bf16 and u [16, in / 2, out, 2] in bf16. `sums` holds bf16_sums_work()
// values, `inputs` bf16_inputs_work().
using Bf16Forward = void (*)(const Convolution &, const uint16_t *x, const uint16_t *u, const float *bias,
                             const uint16_t *plus, uint16_t *y, int64_t begin, int64_t end, float *sums, uint16_t *inputs);

static inline int64_t bf16_sums_work(const Convolution &c) { return 16 * tiles_at_once(c) * c.out; }
static inline int64_t bf16_inputs_work(const Convolution &c) { return 16 * tiles_at_once(c) * c.in + c.in; }

#ifdef __x86_64__
extern const WinogradKernels winograd_avx512, winograd_avx2;
// For AVX-512 with bf16; null if the compiler does not know these instructions.
extern const Bf16Forward winograd_bf16;
#endif
extern const WinogradKernels winograd_any;

} // namespace tch_ext
