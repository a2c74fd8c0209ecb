// What the convolutions of winograd_kernels.h have in common. Each file of kernels includes this after vectors.h and ROWS,
// of which the rows of its matrix products are a multiple.
#pragma once
#include "winograd_transforms.h"

namespace tch_ext {
namespace {

INLINE Lanes load(const float *from) { return *reinterpret_cast<const Lanes *>(from); }
INLINE Lanes load(const uint16_t *from) {
    HalfLanes halves;
    __builtin_memcpy(&halves, from, sizeof halves);
    return widened(halves);
}
INLINE void store(float *to, Lanes lanes) { *reinterpret_cast<Lanes *>(to) = lanes; }
INLINE void store(uint16_t *to, Lanes lanes) {
    const auto halves = halved(lanes);
    __builtin_memcpy(to, &halves, sizeof halves);
}

// The position of a tile: the image, and the tile's first row and column of pixels in it.
struct Place {
    int64_t image, row, column;

    Place(const Convolution &c, int64_t tile) {
        const int64_t columns = tiles_along(c.width), rows = tiles_along(c.height);
        image = tile / (rows * columns);
        row = tile / columns % rows * TILE;
        column = tile % columns * TILE;
    }

    void next(const Convolution &c) {
        column += TILE;
        if (column < c.width) return;
        column = 0;
        row += TILE;
        if (row < c.height) return;
        row = 0;
        ++image;
    }
};

// The channels of pixel (row, column) of an image; `outside` if it has no such pixel.
template <typename T>
INLINE const T *pixel(const Convolution &c, const T *images, int64_t channels, int64_t image, int64_t row, int64_t column,
                      const T *outside) {
    const bool inside = row >= 0 && row < c.height && column >= 0 && column < c.width;
    return inside ? images + ((image * c.height + row) * c.width + column) * channels : outside;
}

// The channels of the pixels of a square with a tile in its middle.
template <int64_t side, typename T>
INLINE void square(const Convolution &c, const T *images, int64_t channels, const Place &place, const T *outside,
                   const T *(&from)[side][side]) {
    const int64_t top = place.row - (side - TILE) / 2, left = place.column - (side - TILE) / 2;
    for (int64_t i = 0; i < side; ++i)
        for (int64_t j = 0; j < side; ++j)
            from[i][j] = pixel(c, images, channels, place.image, top + i, left + j, outside);
}

// v [PLANES, tiles_at_once, in], B^T d B of `count` tiles starting at `place`.
template <typename T, typename V>
void transform_inputs(const Convolution &c, const T *x, Place place, int64_t count, V *v, const T *zeros) {
    const int64_t plane = tiles_at_once(c) * c.in;
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const T *from[SIZE][SIZE];
        square(c, x, c.in, place, zeros, from);
        for (int64_t channel = 0; channel < c.in; channel += LANES) {
            Lanes rows[SIZE][SIZE];
            UNROLL for (int64_t j = 0; j < SIZE; ++j) {
                Lanes d[SIZE], to[SIZE];
                UNROLL for (int64_t i = 0; i < SIZE; ++i) d[i] = load(from[i][j] + channel);
                input_transform(d, to);
                UNROLL for (int64_t i = 0; i < SIZE; ++i) rows[i][j] = to[i];
            }
            V *to = v + t * c.in + channel;
            UNROLL for (int64_t i = 0; i < SIZE; ++i) {
                Lanes places[SIZE];
                input_transform(rows[i], places);
                UNROLL for (int64_t j = 0; j < SIZE; ++j) store(to + (i * SIZE + j) * plane, places[j]);
            }
        }
    }
}

// The pixels of y of `count` tiles starting at `place`: A^T m A, for m [PLANES, tiles_at_once, out], plus the bias and
// the pixels of `plus`; either may be null.
template <typename T>
void transform_outputs(const Convolution &c, const float *m, const float *bias, const T *plus, Place place, int64_t count,
                       T *y) {
    const int64_t plane = tiles_at_once(c) * c.out;
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const int64_t first = ((place.image * c.height + place.row) * c.width + place.column) * c.out;
        for (int64_t channel = 0; channel < c.out; channel += LANES) {
            const float *from = m + t * c.out + channel;
            Lanes rows[TILE][SIZE];
            UNROLL for (int64_t j = 0; j < SIZE; ++j) {
                Lanes column[SIZE], to[TILE];
                UNROLL for (int64_t i = 0; i < SIZE; ++i) column[i] = load(from + (i * SIZE + j) * plane);
                output_transform(column, to);
                UNROLL for (int64_t i = 0; i < TILE; ++i) rows[i][j] = to[i];
            }
            const Lanes biases = bias ? load(bias + channel) : Lanes{};
            UNROLL for (int64_t i = 0; i < TILE; ++i) {
                if (place.row + i >= c.height) break;
                Lanes pixels[TILE];
                output_transform(rows[i], pixels);
                UNROLL for (int64_t j = 0; j < TILE; ++j) {
                    if (place.column + j >= c.width) break;
                    const int64_t at = first + (i * c.width + j) * c.out + channel;
                    const Lanes sum = pixels[j] + biases;
                    store(y + at, plus ? sum + load(plus + at) : sum);
                }
            }
        }
    }
}

// A forward convolution of the tiles `begin` to `end`, `tiles_at_once` of them in v and m at a time: `multiply(k, rows)` sets
// m[k] of that many tiles to v[k] times the weights' plane k.
template <typename T, typename V, typename Multiply>
INLINE void convolve_tiles(const Convolution &c, const T *x, const float *bias, const T *plus, T *y, int64_t begin, int64_t end,
                           V *v, const float *m, const T *zeros, const Multiply &multiply) {
    const int64_t at_once = tiles_at_once(c);
    for (int64_t first = begin; first < end; first += at_once) {
        const int64_t count = end - first < at_once ? end - first : at_once;
        const Place place(c, first);
        transform_inputs(c, x, place, count, v, zeros);
        // Rows beyond the last tile are multiplied too, and their results ignored.
        for (int64_t k = 0; k < PLANES; ++k) multiply(k, (count + ROWS - 1) / ROWS * ROWS);
        transform_outputs(c, m, bias, plus, place, count, y);
    }
}

// Transformed weights lie in panels of PANEL output channels, the last of which may be narrower by LANES: those that a
// block of a matrix product needs follow each other in memory.
constexpr int64_t PANEL = 2 * LANES;

// Calls put(panel, width, plane, i, o, values) for LANES of u at the output channels `panel + o`, for each plane and the
// input channels i of [begin, end).
template <typename Put>
INLINE void transform_panels(const Convolution &c, const Weights &weights, int64_t begin, int64_t end, float *work,
                             const Put &put) {
    for (int64_t i = begin; i < end; ++i) {
        const float *from = weights.values + i * weights.in_stride;
        for (int64_t o = 0; o < c.out; ++o)
            for (int64_t tap = 0; tap < 9; ++tap)
                work[tap * c.out + o] = from[o * weights.out_stride + (weights.turned ? 8 - tap : tap)];
        for (int64_t o = 0; o < c.out; o += LANES) {
            const int64_t panel = o / PANEL * PANEL, width = c.out - panel < PANEL ? LANES : PANEL;
            Lanes rows[SIZE][3];
            UNROLL for (int64_t j = 0; j < 3; ++j) {
                const float *taps = work + j * c.out + o;
                const Lanes g[3] = {load(taps), load(taps + 3 * c.out), load(taps + 6 * c.out)};
                Lanes to[SIZE];
                weight_transform(g, to);
                UNROLL for (int64_t row = 0; row < SIZE; ++row) rows[row][j] = to[row];
            }
            UNROLL for (int64_t row = 0; row < SIZE; ++row) {
                Lanes places[SIZE];
                weight_transform(rows[row], places);
                UNROLL for (int64_t j = 0; j < SIZE; ++j) put(panel, width, row * SIZE + j, i, o - panel, places[j]);
            }
        }
    }
}

} // namespace
} // namespace tch_ext
