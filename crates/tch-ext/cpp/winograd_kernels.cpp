// Compiled once per instruction set, with KERNELS naming the result. Nothing here may be shared with other files: the
// linker would keep one of the copies, which another processor might not be able to run.
#include "vectors.h"
#include "winograd_kernels.h"

namespace tch_ext {
namespace {

// Register blocks of the matrix products that fill the processor's registers with sums: ROWS by two vectors forward, where
// rows are image tiles, and WEIGHT_ROWS by two for weights, where they are input channels.
#if defined __AVX512F__
constexpr int64_t ROWS = 12, WEIGHT_ROWS = 8;
#else
constexpr int64_t ROWS = 6, WEIGHT_ROWS = 4;
#endif

} // namespace
} // namespace tch_ext

#include "winograd_tiles.h"

namespace tch_ext {
namespace {

// Subtracting zero changes no value, not even -0, so the compiler drops it; adding zero would need an instruction.
INLINE Lanes all(float value) { return value - Lanes{}; }

void fill_zero(float *values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = 0;
}

// One tile of c (+)= a b, where a[r][k] is at `a + r * row_stride + k * k_stride`.
template <int64_t rows, int64_t vectors, bool adds>
INLINE void multiply_tile(const float *__restrict a, int64_t row_stride, int64_t k_stride, const float *__restrict b,
                          int64_t b_stride, float *__restrict c, int64_t c_stride, int64_t depth) {
    Lanes sums[rows][vectors];
    UNROLL for (int64_t r = 0; r < rows; ++r) UNROLL for (int64_t v = 0; v < vectors; ++v) sums[r][v] = Lanes{};
    for (int64_t k = 0; k < depth; ++k) {
        Lanes right[vectors];
        UNROLL for (int64_t v = 0; v < vectors; ++v) right[v] = load(b + k * b_stride + v * LANES);
        UNROLL for (int64_t r = 0; r < rows; ++r) {
            const Lanes left = all(a[r * row_stride + k * k_stride]);
            UNROLL for (int64_t v = 0; v < vectors; ++v) sums[r][v] += left * right[v];
        }
    }
    UNROLL for (int64_t r = 0; r < rows; ++r) UNROLL for (int64_t v = 0; v < vectors; ++v) {
        float *to = c + r * c_stride + v * LANES;
        store(to, adds ? load(to) + sums[r][v] : sums[r][v]);
    }
}

// c [rows, columns] (+)= a b; rows are a multiple of `tile`, columns of LANES. b is [depth, columns], or in panels.
template <int64_t tile, bool adds, bool panels>
void multiply(const float *a, int64_t row_stride, int64_t k_stride, int64_t rows, const float *b, float *c, int64_t columns,
              int64_t depth) {
    int64_t at = 0;
    for (; at + PANEL <= columns; at += PANEL)
        for (int64_t r = 0; r < rows; r += tile)
            multiply_tile<tile, 2, adds>(a + r * row_stride, row_stride, k_stride, b + at * (panels ? depth : 1),
                                         panels ? PANEL : columns, c + r * columns + at, columns, depth);
    if (at < columns)
        for (int64_t r = 0; r < rows; r += tile)
            multiply_tile<tile, 1, adds>(a + r * row_stride, row_stride, k_stride, b + at * (panels ? depth : 1),
                                         panels ? LANES : columns, c + r * columns + at, columns, depth);
}

void transform_weights(const Convolution &c, const Weights &weights, float *u, int64_t begin, int64_t end, float *work) {
    const auto put = [&](int64_t panel, int64_t width, int64_t plane, int64_t i, int64_t o, Lanes values) {
        store(u + (plane * c.out + panel) * c.in + i * width + o, values);
    };
    transform_panels(c, weights, begin, end, work, put);
}

template <typename T>
void forward(const Convolution &c, const T *x, const float *u, const float *bias, const T *plus, T *y, int64_t begin,
             int64_t end, float *work) {
    const int64_t at_once = tiles_at_once(c), v_plane = at_once * c.in, m_plane = at_once * c.out;
    float *const v = work, *const m = v + PLANES * v_plane, *const zeros = m + PLANES * m_plane;
    fill_zero(work, forward_work(c));
    convolve_tiles(c, x, bias, plus, y, begin, end, v, m, reinterpret_cast<const T *>(zeros), [&](int64_t k, int64_t rows) {
        multiply<ROWS, false, true>(v + k * v_plane, c.in, 1, rows, u + k * c.in * c.out, m + k * m_plane, c.out, c.in);
    });
}

// Row `row` of the transform of the squares of side x side pixels that have `count` tiles, starting at `place`, in their
// middle, for `channels` of the `stride` channels of the images: to [SIZE, WEIGHT_TILES, channels].
template <int row, int64_t side, void transform(const Lanes (&)[side], Lanes (&)[SIZE]), typename T>
void transform_row(const Convolution &c, const T *images, int64_t stride, int64_t channels, Place place, int64_t count,
                   float *to, const T *zeros) {
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const T *from[side][side];
        square(c, images, stride, place, zeros, from);
        for (int64_t channel = 0; channel < channels; channel += LANES) {
            Lanes sides[side], places[SIZE];
            // The compiler drops what the other rows need.
            UNROLL for (int64_t j = 0; j < side; ++j) {
                Lanes column[side], transformed[SIZE];
                UNROLL for (int64_t i = 0; i < side; ++i) column[i] = load(from[i][j] + channel);
                transform(column, transformed);
                sides[j] = transformed[row];
            }
            transform(sides, places);
            UNROLL for (int64_t j = 0; j < SIZE; ++j) store(to + (j * WEIGHT_TILES + t) * channels + channel, places[j]);
        }
    }
}

template <int row, typename T>
void weight_gradient_row(const Convolution &c, const T *x, const T *dy, float *du, int64_t begin, int64_t end, float *work) {
    const int64_t channels = end - begin, tiles = tiles_of(c);
    float *const v = work, *const d = v + SIZE * WEIGHT_TILES * channels, *const sums = d + SIZE * WEIGHT_TILES * c.out,
                 *const zeros = sums + SIZE * channels * c.out;
    fill_zero(sums, SIZE * channels * c.out);
    fill_zero(zeros, c.in > c.out ? c.in : c.out);
    const T *const outside = reinterpret_cast<const T *>(zeros);
    for (int64_t first = 0; first < tiles; first += WEIGHT_TILES) {
        const int64_t count = tiles - first < WEIGHT_TILES ? tiles - first : WEIGHT_TILES;
        const Place place(c, first);
        transform_row<row, SIZE, input_transform>(c, x + begin, c.in, channels, place, count, v, outside);
        transform_row<row, TILE, gradient_transform>(c, dy, c.out, c.out, place, count, d, outside);
        for (int64_t j = 0; j < SIZE; ++j)
            multiply<WEIGHT_ROWS, true, false>(v + j * WEIGHT_TILES * channels, 1, channels, channels,
                                               d + j * WEIGHT_TILES * c.out, sums + j * channels * c.out, c.out, count);
    }
    for (int64_t j = 0; j < SIZE; ++j)
        __builtin_memcpy(du + ((row * SIZE + j) * c.in + begin) * c.out, sums + j * channels * c.out,
                         sizeof(float) * channels * c.out);
}

template <typename T>
void weight_gradient(const Convolution &c, const T *x, const T *dy, float *du, int64_t row, int64_t begin, int64_t end,
                     float *work) {
    constexpr decltype(&weight_gradient_row<0, T>) rows[SIZE] = {weight_gradient_row<0, T>, weight_gradient_row<1, T>,
                                                                weight_gradient_row<2, T>, weight_gradient_row<3, T>,
                                                                weight_gradient_row<4, T>, weight_gradient_row<5, T>};
    rows[row](c, x, dy, du, begin, end, work);
}

void restore_weights(const Convolution &c, const float *du, float *weights, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
        for (int64_t o = 0; o < c.out; o += LANES) {
            Lanes rows[3][SIZE];
            UNROLL for (int64_t j = 0; j < SIZE; ++j) {
                Lanes column[SIZE], to[3];
                UNROLL for (int64_t k = 0; k < SIZE; ++k) column[k] = load(du + ((k * SIZE + j) * c.in + i) * c.out + o);
                weight_gradient_transform(column, to);
                UNROLL for (int64_t k = 0; k < 3; ++k) rows[k][j] = to[k];
            }
            UNROLL for (int64_t row = 0; row < 3; ++row) {
                Lanes taps[3];
                weight_gradient_transform(rows[row], taps);
                for (int64_t lane = 0; lane < LANES; ++lane)
                    for (int64_t k = 0; k < 3; ++k) weights[((o + lane) * c.in + i) * 9 + row * 3 + k] = taps[k][lane];
            }
        }
}

} // namespace

const WinogradKernels KERNELS = {transform_weights, restore_weights, {forward<float>, weight_gradient<float>},
                                 {forward<uint16_t>, weight_gradient<uint16_t>}};

} // namespace tch_ext
