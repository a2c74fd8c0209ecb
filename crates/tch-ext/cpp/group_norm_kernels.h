// The arithmetic of the fused group norm on one sample, compiled for several instruction sets; see group_norm.cpp.
#pragma once

#include <cstdint>

namespace tch_ext {

struct Bf16 {
    uint16_t bits;
};

// One or two tensors of one sample whose channels are concatenated. Each stores its pixels as rows of its own channels.
template <typename T> struct Parts {
    T *at[2];
    int64_t channels[2];
};

// `offset` is added before the norm, unless null; z = gain * normalised + bias. All three have one value per channel.
struct Sample {
    int64_t pixels, channels, groups;
    const float *offset, *gain, *bias;
};

// Means, adjusted for the offset so that they are subtracted from x itself, and reciprocal standard deviations per
// channel.
struct Statistics {
    float *mean, *rstd;
};

// The results of backward apart from dx: gradients of the tables per channel.
struct TableGradients {
    float *offset, *gain, *bias;
};

template <typename T> struct Kernels {
    // Computes y [pixels, channels] and the statistics from x. `work` holds `channels` values.
    void (*forward)(const Sample &, const Parts<const T> &x, T *y, const Statistics &, float eps, bool silu, float *work);
    // Computes dx from dy [pixels, channels], plus `passed` if it is not null. `work` holds backward_work() values.
    void (*backward)(const Sample &, const Parts<const T> &x, const T *dy, const Parts<const T> &passed, const Statistics &,
                     const Parts<T> &dx, const TableGradients &, bool silu, float *work);
};

struct AllKernels {
    Kernels<float> f32;
    Kernels<Bf16> bf16;
};

// Maximum vector length of all variants.
constexpr int64_t MAX_LANES = 16;

// Two rows of channels, and one value per element in vectors of channels; each part may end in an incomplete vector.
static inline int64_t backward_work(const Sample &s) { return 2 * s.channels + (s.channels + 2 * MAX_LANES) * s.pixels; }

#ifdef __x86_64__
extern const AllKernels group_norm_avx512, group_norm_avx2;
#endif
extern const AllKernels group_norm_any;

} // namespace tch_ext
