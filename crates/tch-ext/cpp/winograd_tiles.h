// The transforms of winograd_kernels.h between images and tiles, for images of f32 or bf16. Each file of kernels has copies
// of its own, for its processor: it includes this after INLINE, UNROLL, LANES, the vectors `Lanes` of as many floats,
// ROWS, of which the rows of its matrix products are a multiple, and `load` and `store`, which convert between vectors and
// the values of images.
#pragma once
#include "winograd_kernels.h"

namespace tch_ext {
namespace {

// B^T (d0, d1, d2, d3), by rows or by columns.
INLINE void input_transform(const Lanes (&d)[4], Lanes (&to)[4]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
}

// The position of a tile: the image, and its row and column in tiles.
struct Place {
    int64_t image, row, column;

    Place(const Convolution &c, int64_t tile)
        : image(tile / (c.tile_rows() * c.tile_columns())), row(tile / c.tile_columns() % c.tile_rows()),
          column(tile % c.tile_columns()) {}

    void next(const Convolution &c) {
        if (++column < c.tile_columns()) return;
        column = 0;
        if (++row < c.tile_rows()) return;
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

// v [16, tiles_at_once, in] of `count` tiles starting at `place`.
template <typename T>
void transform_inputs(const Convolution &c, const T *x, Place place, int64_t count, T *v, const T *zeros) {
    const int64_t plane = tiles_at_once(c) * c.in;
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const T *from[4][4];
        for (int64_t i = 0; i < 4; ++i)
            for (int64_t j = 0; j < 4; ++j)
                from[i][j] = pixel(c, x, c.in, place.image, 2 * place.row - 1 + i, 2 * place.column - 1 + j, zeros);
        for (int64_t channel = 0; channel < c.in; channel += LANES) {
            Lanes rows[4][4];
            UNROLL for (int64_t j = 0; j < 4; ++j) {
                const Lanes d[4] = {load(from[0][j] + channel), load(from[1][j] + channel), load(from[2][j] + channel),
                                    load(from[3][j] + channel)};
                Lanes to[4];
                input_transform(d, to);
                UNROLL for (int64_t i = 0; i < 4; ++i) rows[i][j] = to[i];
            }
            T *to = v + t * c.in + channel;
            UNROLL for (int64_t i = 0; i < 4; ++i) {
                Lanes places[4];
                input_transform(rows[i], places);
                UNROLL for (int64_t j = 0; j < 4; ++j) store(to + (i * 4 + j) * plane, places[j]);
            }
        }
    }
}

// The pixels of y of `count` tiles starting at `place`: A^T m A, for m [16, tiles_at_once, out], plus the bias and the
// pixels of `plus`; either may be null.
template <typename T>
void transform_outputs(const Convolution &c, const float *m, const float *bias, const T *plus, Place place, int64_t count,
                       T *y) {
    const int64_t plane = tiles_at_once(c) * c.out;
    for (int64_t t = 0; t < count; ++t, place.next(c)) {
        const int64_t first = ((place.image * c.height + 2 * place.row) * c.width + 2 * place.column) * c.out;
        const bool below = 2 * place.row + 1 < c.height, right = 2 * place.column + 1 < c.width;
        for (int64_t channel = 0; channel < c.out; channel += LANES) {
            const float *from = m + t * c.out + channel;
            Lanes rows[2][4];
            UNROLL for (int64_t j = 0; j < 4; ++j) {
                const Lanes m0 = load(from + j * plane), m1 = load(from + (4 + j) * plane),
                            m2 = load(from + (8 + j) * plane), m3 = load(from + (12 + j) * plane);
                rows[0][j] = m0 + m1 + m2;
                rows[1][j] = m1 - m2 - m3;
            }
            const Lanes biases = bias ? load(bias + channel) : Lanes{};
            const auto put = [&](int64_t at, Lanes sum) { store(y + at, plus ? sum + load(plus + at) : sum); };
            const auto put_row = [&](const Lanes(&row)[4], int64_t at) {
                put(at, row[0] + row[1] + row[2] + biases);
                if (right) put(at + c.out, row[1] - row[2] - row[3] + biases);
            };
            put_row(rows[0], first + channel);
            if (below) put_row(rows[1], first + c.width * c.out + channel);
        }
    }
}

// A forward convolution of the tiles `begin` to `end`, `tiles_at_once` of them in v and m at a time: `multiply(k, rows)` sets
// m[k] of that many tiles to v[k] times the weights' plane k.
template <typename T, typename Multiply>
INLINE void convolve_tiles(const Convolution &c, const T *x, const float *bias, const T *plus, T *y, int64_t begin, int64_t end,
                           T *v, const float *m, const T *zeros, const Multiply &multiply) {
    const int64_t at_once = tiles_at_once(c);
    for (int64_t first = begin; first < end; first += at_once) {
        const int64_t count = end - first < at_once ? end - first : at_once;
        const Place place(c, first);
        transform_inputs<T>(c, x, place, count, v, zeros);
        // Rows beyond the last tile are multiplied too, and their results ignored.
        for (int64_t k = 0; k < 16; ++k) multiply(k, (count + ROWS - 1) / ROWS * ROWS);
        transform_outputs<T>(c, m, bias, plus, place, count, y);
    }
}

} // namespace
} // namespace tch_ext
