// Compiled once per instruction set, with KERNELS naming the result. Nothing here may be shared with other files: the
// linker would keep one of the copies, which another processor might not be able to run.
#include "winograd_kernels.h"

namespace tch_ext {
namespace {

// Vectors as wide as the processor's, and register blocks of the matrix products that fill its registers with sums:
// ROWS by two vectors forward, where rows are image tiles, and WEIGHT_ROWS by two for weights, where they are input
// channels.
#if defined __AVX512F__
constexpr int64_t LANES = 16, ROWS = 12, WEIGHT_ROWS = 8;
#elif defined __AVX2__
constexpr int64_t LANES = 8, ROWS = 6, WEIGHT_ROWS = 4;
#else
constexpr int64_t LANES = 4, ROWS = 6, WEIGHT_ROWS = 4;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// A call would spill every register.
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE Lanes load(const float *from) { return *reinterpret_cast<const Lanes *>(from); }
INLINE void store(float *to, Lanes lanes) { *reinterpret_cast<Lanes *>(to) = lanes; }
// Subtracting zero changes no value, not even -0, so the compiler drops it; adding zero would need an instruction.
INLINE Lanes all(float value) { return value - Lanes{}; }

} // namespace
} // namespace tch_ext

#include "winograd_tiles.h"

namespace tch_ext {
namespace {

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

// c [rows, columns] (+)= a b; rows are a multiple of `tile`, columns of LANES.
template <int64_t tile, bool adds>
void multiply(const float *a, int64_t row_stride, int64_t k_stride, int64_t rows, const float *b, float *c, int64_t columns,
              int64_t depth) {
    int64_t at = 0;
    for (; at + 2 * LANES <= columns; at += 2 * LANES)
        for (int64_t r = 0; r < rows; r += tile)
            multiply_tile<tile, 2, adds>(a + r * row_stride, row_stride, k_stride, b + at, columns, c + r * columns + at,
                                         columns, depth);
    if (at < columns)
        for (int64_t r = 0; r < rows; r += tile)
            multiply_tile<tile, 1, adds>(a + r * row_stride, row_stride, k_stride, b + at, columns, c + r * columns + at,
                                         columns, depth);
}

void transform_weights(const Convolution &c, const float *weights, int64_t in_stride, int64_t out_stride, bool turned,
                       float *u, int64_t begin, int64_t end, float *work) {
    for (int64_t i = begin; i < end; ++i) {
        for (int64_t o = 0; o < c.out; ++o)
            for (int64_t tap = 0; tap < 9; ++tap)
                work[tap * c.out + o] = weights[i * in_stride + o * out_stride + (turned ? 8 - tap : tap)];
        for (int64_t o = 0; o < c.out; o += LANES) {
            Lanes columns[4][3];
            const auto transform = [](Lanes g0, Lanes g1, Lanes g2, Lanes *to, int64_t stride) {
                to[0] = g0;
                to[stride] = 0.5f * (g0 + g1 + g2);
                to[2 * stride] = 0.5f * (g0 - g1 + g2);
                to[3 * stride] = g2;
            };
            UNROLL for (int64_t j = 0; j < 3; ++j) {
                const float *from = work + j * c.out + o;
                transform(load(from), load(from + 3 * c.out), load(from + 6 * c.out), &columns[0][j], 3);
            }
            UNROLL for (int64_t row = 0; row < 4; ++row) {
                Lanes places[4];
                transform(columns[row][0], columns[row][1], columns[row][2], places, 1);
                UNROLL for (int64_t j = 0; j < 4; ++j) store(u + ((row * 4 + j) * c.in + i) * c.out + o, places[j]);
            }
        }
    }
}

void forward(const Convolution &c, const float *x, const float *u, const float *bias, const float *plus, float *y,
             int64_t begin, int64_t end, float *work) {
    const int64_t at_once = tiles_at_once(c), v_plane = at_once * c.in, m_plane = at_once * c.out;
    float *const v = work, *const m = v + 16 * v_plane, *const zeros = m + 16 * m_plane;
    fill_zero(work, forward_work(c));
    convolve_tiles(c, x, bias, plus, y, begin, end, v, m, zeros, [&](int64_t k, int64_t rows) {
        multiply<ROWS, false>(v + k * v_plane, c.in, 1, rows, u + k * c.in * c.out, m + k * m_plane, c.out, c.in);
    });
}

// Row `row` of B^T d B of `count` tiles, for `channels` channels starting at `channel`: v [4, WEIGHT_TILES, channels].
template <int row>
void transform_input_row(const Convolution &c, const float *x, int64_t channel, int64_t channels, Place place, int64_t count,
                         float *v, const float *zeros) {
    constexpr int64_t plus[4] = {0, 1, 2, 1}, other[4] = {2, 2, 1, 3};
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const float *first[4], *second[4];
        for (int64_t j = 0; j < 4; ++j) {
            const int64_t top = 2 * place.row - 1, column = 2 * place.column - 1 + j;
            first[j] = pixel<float>(c, x + channel, c.in, place.image, top + plus[row], column, zeros);
            second[j] = pixel<float>(c, x + channel, c.in, place.image, top + other[row], column, zeros);
        }
        for (int64_t at = 0; at < channels; at += LANES) {
            Lanes d[4], places[4];
            UNROLL for (int64_t j = 0; j < 4; ++j) {
                const Lanes a = load(first[j] + at), b = load(second[j] + at);
                d[j] = row == 1 ? a + b : a - b;
            }
            input_transform(d, places);
            UNROLL for (int64_t j = 0; j < 4; ++j) store(v + (j * WEIGHT_TILES + t) * channels + at, places[j]);
        }
    }
}

// Row `row` of A dy A^T of `count` tiles: d [4, WEIGHT_TILES, out].
template <int row>
void transform_gradient_row(const Convolution &c, const float *dy, Place place, int64_t count, float *d,
                            const float *zeros) {
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const float *from[2][2];
        for (int64_t i = 0; i < 2; ++i)
            for (int64_t j = 0; j < 2; ++j)
                from[i][j] = pixel<float>(c, dy, c.out, place.image, 2 * place.row + i, 2 * place.column + j, zeros);
        for (int64_t channel = 0; channel < c.out; channel += LANES) {
            Lanes sides[2];
            UNROLL for (int64_t j = 0; j < 2; ++j) {
                const Lanes top = load(from[0][j] + channel), bottom = load(from[1][j] + channel);
                sides[j] = row == 0 ? top : row == 1 ? top + bottom : row == 2 ? top - bottom : -bottom;
            }
            const Lanes places[4] = {sides[0], sides[0] + sides[1], sides[0] - sides[1], -sides[1]};
            UNROLL for (int64_t j = 0; j < 4; ++j) store(d + (j * WEIGHT_TILES + t) * c.out + channel, places[j]);
        }
    }
}

template <int row>
void weight_gradient_row(const Convolution &c, const float *x, const float *dy, float *du, int64_t begin, int64_t end,
                         float *work) {
    const int64_t channels = end - begin;
    float *const v = work, *const d = v + 4 * WEIGHT_TILES * channels, *const sums = d + 4 * WEIGHT_TILES * c.out,
                 *const zeros = sums + 4 * channels * c.out;
    fill_zero(sums, 4 * channels * c.out);
    fill_zero(zeros, c.in > c.out ? c.in : c.out);
    for (int64_t first = 0; first < c.tiles(); first += WEIGHT_TILES) {
        const int64_t count = c.tiles() - first < WEIGHT_TILES ? c.tiles() - first : WEIGHT_TILES;
        const Place place(c, first);
        transform_input_row<row>(c, x, begin, channels, place, count, v, zeros);
        transform_gradient_row<row>(c, dy, place, count, d, zeros);
        for (int64_t j = 0; j < 4; ++j)
            multiply<WEIGHT_ROWS, true>(v + j * WEIGHT_TILES * channels, 1, channels, channels, d + j * WEIGHT_TILES * c.out,
                                        sums + j * channels * c.out, c.out, count);
    }
    for (int64_t j = 0; j < 4; ++j)
        __builtin_memcpy(du + ((row * 4 + j) * c.in + begin) * c.out, sums + j * channels * c.out,
                         sizeof(float) * channels * c.out);
}

void weight_gradient(const Convolution &c, const float *x, const float *dy, float *du, int64_t row, int64_t begin,
                     int64_t end, float *work) {
    constexpr decltype(&weight_gradient_row<0>) rows[4] = {weight_gradient_row<0>, weight_gradient_row<1>,
                                                          weight_gradient_row<2>, weight_gradient_row<3>};
    rows[row](c, x, dy, du, begin, end, work);
}

void restore_weights(const Convolution &c, const float *du, float *weights, int64_t begin, int64_t end) {
    const auto restore = [](Lanes u0, Lanes u1, Lanes u2, Lanes u3, Lanes *to, int64_t stride) {
        to[0] = u0 + 0.5f * (u1 + u2);
        to[stride] = 0.5f * (u1 - u2);
        to[2 * stride] = 0.5f * (u1 + u2) + u3;
    };
    for (int64_t i = begin; i < end; ++i)
        for (int64_t o = 0; o < c.out; o += LANES) {
            Lanes rows[3][4], taps[9];
            UNROLL for (int64_t j = 0; j < 4; ++j) {
                const auto at = [&](int64_t row) { return load(du + ((row * 4 + j) * c.in + i) * c.out + o); };
                restore(at(0), at(1), at(2), at(3), &rows[0][j], 4);
            }
            UNROLL for (int64_t row = 0; row < 3; ++row)
                restore(rows[row][0], rows[row][1], rows[row][2], rows[row][3], &taps[row * 3], 1);
            for (int64_t lane = 0; lane < LANES; ++lane)
                for (int64_t tap = 0; tap < 9; ++tap) weights[((o + lane) * c.in + i) * 9 + tap] = taps[tap][lane];
        }
}

} // namespace

const WinogradKernels KERNELS = {transform_weights, forward, weight_gradient, restore_weights};

} // namespace tch_ext
