// The transforms of Winograd's F(4x4, 3x3) in one dimension, which matrices apply by columns and then by rows. Included
// by winograd_tiles.h.
//
// They are those of Lavin & Gray 2015 (arXiv 1509.09308) for other points: 0, +-A, +-B and infinity, with A = 1 / sqrt 2 and
// B = sqrt 2, leave half of the rounding error of 0, +-1, +-2 and infinity (docs/log.md, 2026-11-28).
#pragma once
#include "winograd_kernels.h"

namespace tch_ext {
namespace {

constexpr float A = 0.70710678f, B = 1.41421356f;

// The values of a polynomial's even and odd terms at +-A, and at +-B.
INLINE void set_pairs(Lanes even, Lanes odd, Lanes even2, Lanes odd2, Lanes (&to)[SIZE]) {
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
}

// B^T d
INLINE void input_transform(const Lanes (&d)[SIZE], Lanes (&to)[SIZE]) {
    const Lanes even = d[4] - 2.0f * d[2], odd = A * (d[3] - 2.0f * d[1]);
    const Lanes even2 = d[4] - 0.5f * d[2], odd2 = B * (d[3] - 0.5f * d[1]);
    to[0] = d[0] - 2.5f * d[2] + d[4];
    set_pairs(even, odd, even2, odd2, to);
    to[5] = d[1] - 2.5f * d[3] + d[5];
}

// A^T m
INLINE void output_transform(const Lanes (&m)[SIZE], Lanes (&to)[TILE]) {
    const Lanes even = m[1] + m[2], odd = A * (m[1] - m[2]);
    const Lanes even2 = m[3] + m[4], odd2 = B * (m[3] - m[4]);
    to[0] = m[0] + even + even2;
    to[1] = odd + odd2;
    to[2] = 0.5f * even + 2.0f * even2;
    to[3] = 0.5f * odd + 2.0f * odd2 + m[5];
}

// G g
INLINE void weight_transform(const Lanes (&g)[3], Lanes (&to)[SIZE]) {
    const Lanes even = (-1.0f / 3) * (2.0f * g[0] + g[2]), odd = (-2.0f / 3) * A * g[1];
    const Lanes even2 = (1.0f / 6) * (g[0] + 2.0f * g[2]), odd2 = (1.0f / 6) * B * g[1];
    to[0] = g[0];
    set_pairs(even, odd, even2, odd2, to);
    to[5] = g[2];
}

// The transposes of the last two, for the gradient of the weights: A dy, and G^T du.
INLINE void gradient_transform(const Lanes (&dy)[TILE], Lanes (&to)[SIZE]) {
    const Lanes even = dy[0] + 0.5f * dy[2], odd = A * (dy[1] + 0.5f * dy[3]);
    const Lanes even2 = dy[0] + 2.0f * dy[2], odd2 = B * (dy[1] + 2.0f * dy[3]);
    to[0] = dy[0];
    set_pairs(even, odd, even2, odd2, to);
    to[5] = dy[3];
}

INLINE void weight_gradient_transform(const Lanes (&du)[SIZE], Lanes (&to)[3]) {
    const Lanes even = (-1.0f / 3) * (du[1] + du[2]), even2 = (1.0f / 6) * (du[3] + du[4]);
    to[0] = du[0] + 2.0f * even + even2;
    to[1] = (-2.0f / 3) * A * (du[1] - du[2]) + (1.0f / 6) * B * (du[3] - du[4]);
    to[2] = even + 2.0f * even2 + du[5];
}

} // namespace
} // namespace tch_ext
