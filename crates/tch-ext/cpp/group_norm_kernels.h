// The arithmetic of the fused group norm on one sample, compiled for several processors; see group_norm.cpp.
#pragma once

#include <cstdint>

namespace tch_ext {

struct Bf16 {
    uint16_t bits;
};

// One or two tensors of one sample whose channels are taken together, the second's after the first's. Each has its pixels
// in rows of its own channels.
template <typename T> struct Parts {
    T *at[2];
    int64_t channels[2];
};

// `offset` is added before the norm; z = gain * normalised + bias. All three have a value for each channel.
struct Sample {
    int64_t pixels, channels, groups;
    const float *offset, *gain, *bias;
};

// Means, which take in the offset (what is subtracted from x itself), and reciprocal standard deviations per channel.
struct Statistics {
    float *mean, *rstd;
};

// What backward finds out beside dx: gradients of the tables per channel.
struct TableGradients {
    float *offset, *gain, *bias;
};

template <typename T> struct Kernels {
    // y [pixels, channels] and the statistics from x. `work` holds `channels` values.
    void (*forward)(const Sample &, const Parts<const T> &x, T *y, const Statistics &, float eps, bool silu, float *work);
    // dx from dy [pixels, channels], plus `passed` where it is not null. `work` holds backward_work() values.
    void (*backward)(const Sample &, const Parts<const T> &x, const T *dy, const Parts<const T> &passed, const Statistics &,
                     const Parts<T> &dx, const TableGradients &, bool silu, float *work);
};

struct AllKernels {
    Kernels<float> f32;
    Kernels<Bf16> bf16;
};

// Of a vector in any of the variants, at the most.
constexpr int64_t MOST_LANES = 16;

// Two rows of channels, and a value for each element in vectors of channels; each part may end in half a vector.
static inline int64_t backward_work(const Sample &s) { return 2 * s.channels + (s.channels + 2 * MOST_LANES) * s.pixels; }

#ifdef __x86_64__
extern const AllKernels group_norm_avx512, group_norm_avx2;
#endif
extern const AllKernels group_norm_any;

} // namespace tch_ext
