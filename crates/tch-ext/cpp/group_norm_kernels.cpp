// Compiled once per instruction set, with KERNELS naming the result. Nothing here may be shared with other files: the
// linker would keep one of the copies, which another processor might not be able to run.
#include "group_norm_kernels.h"
#include "vectors.h"

namespace tch_ext {
namespace {

static_assert(LANES <= MAX_LANES);

// The first `count` of the lanes; all of them if `full`.
template <bool full> INLINE Lanes load(const float *from, int64_t count) {
    Lanes lanes{};
    __builtin_memcpy(&lanes, from, full ? sizeof lanes : count * sizeof *from);
    return lanes;
}

template <bool full> INLINE Lanes load(const Bf16 *from, int64_t count) {
    HalfLanes halves{};
    __builtin_memcpy(&halves, from, full ? sizeof halves : count * sizeof *from);
    return widened(halves);
}

template <bool full> INLINE void store(float *to, Lanes lanes, int64_t count) {
    __builtin_memcpy(to, &lanes, full ? sizeof lanes : count * sizeof *to);
}

template <bool full> INLINE void store(Bf16 *to, Lanes lanes, int64_t count) {
    const auto halves = halved(lanes);
    __builtin_memcpy(to, &halves, full ? sizeof halves : count * sizeof *to);
}

// Adds a block's sums to those of the previous blocks: with few terms in each, little precision is lost.
template <bool full> INLINE void add(float *to, Lanes lanes, int64_t count) {
    store<full>(to, load<full>(to, count) + lanes, count);
}

// exp to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
INLINE Lanes exponential(Lanes x) {
    x = x < -87.0f ? Lanes{} - 87.0f : x;
    x = x > 87.0f ? Lanes{} + 87.0f : x;
    constexpr float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, which its last bits then hold
    const Lanes shifted = x * 1.44269504f + magic, n = shifted - magic;
    Lanes r = x - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    // n is added to the exponent.
    return __builtin_bit_cast(Lanes, __builtin_bit_cast(BitLanes, p) + (__builtin_bit_cast(BitLanes, shifted) << 23));
}

// 1 / x of a positive x, to one unit in the last place: an estimate from the exponent, and steps that cube its relative
// error. Takes less than half the time of a division.
INLINE Lanes reciprocal(Lanes x) {
    Lanes guess = __builtin_bit_cast(Lanes, 0x7ef311c7 - __builtin_bit_cast(IntLanes, x));
    for (int step = 0; step < 2; ++step) {
        const Lanes error = 1.0f - x * guess;
        guess += guess * (error + error * error);
    }
    return guess;
}

INLINE Lanes sigmoid(Lanes z) { return reciprocal(1.0f + exponential(-z)); }

// Calls body<full>(part, first channel in the part, first channel overall, count, first pixel, end pixel) for each
// block of channels of some pixels, in nearly sequential memory order.
template <typename T, typename Body> void blocks(const Parts<T> &parts, int64_t pixels, Body body) {
    constexpr int64_t ROWS = 16;
    for (int64_t begin = 0; begin < pixels; begin += ROWS) {
        const int64_t end = begin + ROWS < pixels ? begin + ROWS : pixels;
        int64_t before = 0;
        for (int part = 0; part < 2; ++part) {
            const int64_t channels = parts.channels[part];
            int64_t c = 0;
            for (; c + LANES <= channels; c += LANES)
                body.template operator()<true>(part, c, before + c, LANES, begin, end);
            if (c < channels) body.template operator()<false>(part, c, before + c, channels - c, begin, end);
            before += channels;
        }
    }
}

void fill(float *values, int64_t count, float value) {
    for (int64_t i = 0; i < count; ++i) values[i] = value;
}

// Means over each group of the sums in `per_channel`, stored to each channel of the group.
void spread_group_means(const Sample &s, float *per_channel) {
    const int64_t width = s.channels / s.groups;
    for (int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (int64_t c = g * width; c < (g + 1) * width; ++c) sum += per_channel[c];
        const float mean = static_cast<float>(sum / static_cast<double>(width * s.pixels));
        for (int64_t c = g * width; c < (g + 1) * width; ++c) per_channel[c] = mean;
    }
}

template <bool silu, typename T>
void forward(const Sample &s, const Parts<const T> &x, T *y, const Statistics &statistics, float eps, float *work) {
    const auto &[mean, rstd] = statistics;
    const auto offset = [&](int64_t c) { return s.offset ? s.offset[c] : 0.0f; };
    for (int64_t c = 0; c < s.channels; ++c) work[c] = offset(c) * static_cast<float>(s.pixels);
    blocks(x, s.pixels, [&]<bool full>(int part, int64_t at, int64_t c, int64_t count, int64_t begin, int64_t end) {
        const T *from = x.at[part] + at;
        Lanes sum{};
        for (int64_t p = begin; p < end; ++p) sum += load<full>(from + p * x.channels[part], count);
        add<full>(work + c, sum, count);
    });
    spread_group_means(s, work);
    for (int64_t c = 0; c < s.channels; ++c) mean[c] = work[c] - offset(c);
    fill(work, s.channels, 0);
    blocks(x, s.pixels, [&]<bool full>(int part, int64_t at, int64_t c, int64_t count, int64_t begin, int64_t end) {
        const T *from = x.at[part] + at;
        const Lanes centre = load<full>(mean + c, count);
        Lanes sum{};
        for (int64_t p = begin; p < end; ++p) {
            const Lanes centred = load<full>(from + p * x.channels[part], count) - centre;
            sum += centred * centred;
        }
        add<full>(work + c, sum, count);
    });
    spread_group_means(s, work);
    for (int64_t c = 0; c < s.channels; ++c) rstd[c] = 1.0f / __builtin_sqrtf(work[c] + eps);
    blocks(x, s.pixels, [&]<bool full>(int part, int64_t at, int64_t c, int64_t count, int64_t begin, int64_t end) {
        const T *from = x.at[part] + at;
        const Lanes slope = load<full>(rstd + c, count) * load<full>(s.gain + c, count);
        const Lanes intercept = load<full>(s.bias + c, count) - load<full>(mean + c, count) * slope;
        for (int64_t p = begin; p < end; ++p) {
            const Lanes z = load<full>(from + p * x.channels[part], count) * slope + intercept;
            store<full>(y + p * s.channels + c, silu ? z * sigmoid(z) : z, count);
        }
    });
}

template <bool silu, typename T>
void backward(const Sample &s, const Parts<const T> &x, const T *dy, const Parts<const T> &passed,
              const Statistics &statistics, const Parts<T> &dx, const TableGradients &tables, float *work) {
    // The gradients through the group's mean and variance: means over the group of gain * dz, and of that times the
    // normalised x.
    float *plain = work, *along = work + s.channels;
    // The gradient at z, saved in the first sweep for the second.
    float *const kept = work + 2 * s.channels;
    float *next = kept;
    fill(tables.offset, s.channels, 0);
    fill(tables.gain, s.channels, 0);
    fill(tables.bias, s.channels, 0);
    blocks(x, s.pixels, [&]<bool full>(int part, int64_t at, int64_t c, int64_t count, int64_t begin, int64_t end) {
        const T *from = x.at[part] + at;
        const Lanes mean = load<full>(statistics.mean + c, count), rstd = load<full>(statistics.rstd + c, count);
        const Lanes gain = load<full>(s.gain + c, count), bias = load<full>(s.bias + c, count);
        Lanes d_gain{}, d_bias{};
        for (int64_t p = begin; p < end; ++p) {
            const Lanes normalised = (load<full>(from + p * x.channels[part], count) - mean) * rstd;
            Lanes dz = load<full>(dy + p * s.channels + c, count);
            if (silu) {
                const Lanes z = normalised * gain + bias, share = sigmoid(z);
                dz *= share * (1.0f + z * (1.0f - share));
            }
            d_gain += dz * normalised;
            d_bias += dz;
            store<true>(next, dz, LANES);
            next += LANES;
        }
        add<full>(tables.gain + c, d_gain, count);
        add<full>(tables.bias + c, d_bias, count);
    });
    for (int64_t c = 0; c < s.channels; ++c) plain[c] = s.gain[c] * tables.bias[c];
    for (int64_t c = 0; c < s.channels; ++c) along[c] = s.gain[c] * tables.gain[c];
    spread_group_means(s, plain);
    spread_group_means(s, along);
    next = kept;
    blocks(x, s.pixels, [&]<bool full>(int part, int64_t at, int64_t c, int64_t count, int64_t begin, int64_t end) {
        const int64_t stride = x.channels[part];
        const T *from = x.at[part] + at, *besides = passed.at[part] ? passed.at[part] + at : nullptr;
        T *to = dx.at[part] + at;
        const Lanes mean = load<full>(statistics.mean + c, count), rstd = load<full>(statistics.rstd + c, count);
        const Lanes gain = load<full>(s.gain + c, count);
        const Lanes plainly = load<full>(plain + c, count), along_it = load<full>(along + c, count);
        Lanes d_offset{};
        for (int64_t p = begin; p < end; ++p) {
            const Lanes normalised = (load<full>(from + p * stride, count) - mean) * rstd;
            const Lanes dz = load<true>(next, LANES);
            next += LANES;
            Lanes d = rstd * (gain * dz - plainly - normalised * along_it);
            d_offset += d;
            if (besides) d += load<full>(besides + p * stride, count);
            store<full>(to + p * stride, d, count);
        }
        add<full>(tables.offset + c, d_offset, count);
    });
}

template <typename T> constexpr Kernels<T> kernels() {
    return {
        [](const Sample &s, const Parts<const T> &x, T *y, const Statistics &statistics, float eps, bool silu, float *work) {
            (silu ? forward<true, T> : forward<false, T>)(s, x, y, statistics, eps, work);
        },
        [](const Sample &s, const Parts<const T> &x, const T *dy, const Parts<const T> &passed, const Statistics &statistics,
           const Parts<T> &dx, const TableGradients &tables, bool silu, float *work) {
            (silu ? backward<true, T> : backward<false, T>)(s, x, dy, passed, statistics, dx, tables, work);
        },
    };
}

} // namespace

const AllKernels KERNELS = {kernels<float>(), kernels<Bf16>()};

} // namespace tch_ext
