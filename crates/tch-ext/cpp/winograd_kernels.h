// 3x3 convolutions of stride 1 and padding 1 by Winograd's F(4x4, 3x3), following Lavin & Gray 2015 (arXiv 1509.09308), on
// images with channels last, in multiples of 16. Compiled for several instruction sets; see winograd.cpp.
//
// Images are divided into tiles of 4x4 pixels, numbered across the batch, each with the 6x6 input pixels d around it.
// The result of a tile is A^T [(G g G^T) . (B^T d B)] A, where the product in brackets, summed over input channels, is
// a matrix product over many tiles for each of its 36 positions: 36 multiplications for 16 pixels of the result instead of
// 144.
#pragma once

#include <cstdint>

namespace tch_ext {

// Images [batch, height, width, in] become [batch, height, width, out].
struct Convolution {
    int64_t batch, height, width, in, out;
};

// Pixels of a tile's side, with those around it, and the positions of a tile, which are the planes of transformed weights.
constexpr int64_t TILE = 4, SIZE = TILE + 2, PLANES = SIZE * SIZE;

static inline int64_t tiles_along(int64_t pixels) { return (pixels + TILE - 1) / TILE; }
static inline int64_t tiles_of(const Convolution &c) { return c.batch * tiles_along(c.height) * tiles_along(c.width); }

// A forward convolution multiplies this many tiles at once: a multiple of all kernels' rows, few enough that they stay in
// the L2 cache, and enough that large weights are read rarely.
static inline int64_t tiles_at_once(const Convolution &c) {
    const int64_t fit = (1 << 17) / (PLANES * (c.in + c.out)) / 12 * 12;
    return fit < 36 ? 36 : fit > 96 ? 96 : fit;
}

// Where weights of a convolution start, [.., .., 3, 3]: those of input channel i and output channel o at
// `i * in_stride + o * out_stride`; `turned` by 180 degrees for the convolution in backward.
struct Weights {
    const float *values;
    int64_t in_stride, out_stride;
    bool turned;
};

// Rows of positions, and tiles per matrix product in weight_gradient: few enough that they and the sums stay in the L1
// and L2 caches.
constexpr int64_t WEIGHT_PARTS = SIZE, WEIGHT_TILES = 32;

// On images of f32, or of bf16 (uint16_t). What is multiplied, and sums, are f32.
template <typename T> struct ImageKernels {
    // Tiles [begin, end) of y, from x, u, the bias, and `plus` of the shape of y, which is added; either may be null. `work`
    // holds forward_work() values.
    void (*forward)(const Convolution &, const T *x, const float *u, const float *bias, const T *plus, T *y, int64_t begin,
                    int64_t end, float *work);
    // One of the WEIGHT_PARTS rows of positions of du [PLANES, in, out], the gradient of u, for the input channels [begin,
    // end), from x and the gradient dy of y. Such parts do not share results. `work` holds weight_work() values.
    void (*weight_gradient)(const Convolution &, const T *x, const T *dy, float *du, int64_t row, int64_t begin, int64_t end,
                            float *work);
};

struct WinogradKernels {
    // The part of u for the input channels [begin, end): G g G^T of each pair of channels. u has PLANES planes of in * out
    // values, in an order of this processor's. `work` holds 9 * out values.
    void (*transform_weights)(const Convolution &, const Weights &, float *u, int64_t begin, int64_t end, float *work);
    // The gradients of the weights [out, in, 3, 3] of the input channels [begin, end): G^T du G.
    void (*restore_weights)(const Convolution &, const float *du, float *weights, int64_t begin, int64_t end);
    ImageKernels<float> f32;
    ImageKernels<uint16_t> bf16;
};

static inline int64_t forward_work(const Convolution &c) {
    return PLANES * tiles_at_once(c) * (c.in + c.out) + (c.in > c.out ? c.in : c.out);
}
static inline int64_t weight_work(const Convolution &c, int64_t channels) {
    return WEIGHT_PARTS * (WEIGHT_TILES * (channels + c.out) + channels * c.out) + (c.in > c.out ? c.in : c.out);
}

// Where u is bf16 too, and so is what is multiplied. transform_weights stores pairs of channels, so `begin` and `end` must be
// even. `sums` holds bf16_sums_work() values, `inputs` bf16_inputs_work().
struct Bf16Kernels {
    void (*transform_weights)(const Convolution &, const Weights &, uint16_t *u, int64_t begin, int64_t end, float *work);
    void (*forward)(const Convolution &, const uint16_t *x, const uint16_t *u, const float *bias, const uint16_t *plus,
                    uint16_t *y, int64_t begin, int64_t end, float *sums, uint16_t *inputs);
};

static inline int64_t bf16_sums_work(const Convolution &c) {
    return PLANES * tiles_at_once(c) * c.out;
}
static inline int64_t bf16_inputs_work(const Convolution &c) {
    return PLANES * tiles_at_once(c) * c.in + c.in;
}

#ifdef __x86_64__
extern const WinogradKernels winograd_avx512, winograd_avx2;
// For AVX-512 with bf16; null if the compiler does not know these instructions.
extern const Bf16Kernels *const winograd_bf16;
#endif
extern const WinogradKernels winograd_any;

} // namespace tch_ext
