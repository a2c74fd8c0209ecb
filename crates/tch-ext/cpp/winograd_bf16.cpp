// The convolutions of winograd_kernels.h on images and transformed weights in bf16, by dot products of two channels at a
// time, with sums in f32. Compiled once, for AVX-512 with these instructions.
#include "vectors.h"
#include "winograd_kernels.h"

#if defined __AVX512F__ && defined __AVX512BF16__
#include <immintrin.h>

namespace tch_ext {
namespace {

// Tiles in a register block of two vectors of output channels: 24 of 32 registers hold sums.
constexpr int64_t ROWS = 12;

} // namespace
} // namespace tch_ext

#include "winograd_tiles.h"

namespace tch_ext {
namespace {

// u [PLANES, panels, in / 2, PANEL, 2].
void transform_weights(const Convolution &c, const Weights &weights, uint16_t *u, int64_t begin, int64_t end, float *work) {
    const auto put = [&](int64_t panel, int64_t width, int64_t plane, int64_t i, int64_t o, Lanes values) {
        uint16_t *const to = u + (plane * c.out + panel) * c.in + (i / 2 * width + o) * 2;
        const __m512i halves = _mm512_cvtepu16_epi32((__m256i)halved(values));
        // The first of a pair clears the place of the second.
        const auto pairs = i % 2 ? _mm512_or_si512(_mm512_loadu_si512(to), _mm512_slli_epi32(halves, 16)) : halves;
        _mm512_storeu_si512(to, pairs);
    };
    transform_panels(c, weights, begin, end, work, put);
}

// One block of c [.., out] = a b, for a [.., in] and a panel b [in / 2, vectors * LANES, 2].
template <int64_t vectors>
INLINE void multiply_block(const uint16_t *__restrict a, const uint16_t *__restrict b, float *__restrict c, int64_t in,
                           int64_t out) {
    __m512 sums[ROWS][vectors];
    UNROLL for (int64_t r = 0; r < ROWS; ++r) UNROLL for (int64_t v = 0; v < vectors; ++v) sums[r][v] = _mm512_setzero_ps();
    for (int64_t k = 0; k < in; k += 2) {
        __m512bh right[vectors];
        UNROLL for (int64_t v = 0; v < vectors; ++v)
            right[v] = (__m512bh)_mm512_loadu_si512(b + (k * vectors + 2 * v) * LANES);
        UNROLL for (int64_t r = 0; r < ROWS; ++r) {
            int32_t pair;
            __builtin_memcpy(&pair, a + r * in + k, sizeof pair);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
            UNROLL for (int64_t v = 0; v < vectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], left, right[v]);
        }
    }
    UNROLL for (int64_t r = 0; r < ROWS; ++r) UNROLL for (int64_t v = 0; v < vectors; ++v)
        _mm512_storeu_ps(c + r * out + v * LANES, sums[r][v]);
}

// c [rows, out] = a b; rows are a multiple of ROWS, `out` of LANES, and b is in panels.
void multiply(const uint16_t *a, int64_t rows, const uint16_t *b, float *c, int64_t in, int64_t out) {
    int64_t at = 0;
    for (; at + PANEL <= out; at += PANEL)
        for (int64_t r = 0; r < rows; r += ROWS) multiply_block<2>(a + r * in, b + at * in, c + r * out + at, in, out);
    if (at < out)
        for (int64_t r = 0; r < rows; r += ROWS) multiply_block<1>(a + r * in, b + at * in, c + r * out + at, in, out);
}

void forward(const Convolution &c, const uint16_t *x, const uint16_t *u, const float *bias, const uint16_t *plus,
             uint16_t *y, int64_t begin, int64_t end, float *m, uint16_t *v) {
    const int64_t at_once = tiles_at_once(c), v_plane = at_once * c.in, m_plane = at_once * c.out;
    uint16_t *const zeros = v + PLANES * v_plane;
    __builtin_memset(v, 0, sizeof(uint16_t) * bf16_inputs_work(c));
    convolve_tiles(c, x, bias, plus, y, begin, end, v, m, zeros, [&](int64_t k, int64_t rows) {
        multiply(v + k * v_plane, rows, u + k * c.in * c.out, m + k * m_plane, c.in, c.out);
    });
}

const Bf16Kernels KERNELS = {transform_weights, forward};

} // namespace

const Bf16Kernels *const winograd_bf16 = &KERNELS;

} // namespace tch_ext

#else

namespace tch_ext {

const Bf16Kernels *const winograd_bf16 = nullptr;

} // namespace tch_ext

#endif
