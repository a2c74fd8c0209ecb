// The arithmetic of the fused group norm on a GPU with channels last. It is compiled by NVRTC for the GPU, where a block's
// threads run at once, and by the host's compiler for tests, where a block is a loop over its threads: every kernel is a
// sequence of phases that share nothing but `shared` and global memory.
#pragma once

#ifdef __CUDACC_RTC__
using int64_t = long long;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
#define DEVICE __device__ __forceinline__
#define EACH_THREAD(t) for (int t = threadIdx.x, first_ = 1; first_; first_ = 0)
#define NEXT_PHASE() __syncthreads()
DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t as_bits(float value) { return __float_as_uint(value); }
DEVICE float inverse_root(float x) { return 1.0f / sqrtf(x); }
DEVICE float exponential(float x) { return expf(x); }
#else
#include <cmath>
#include <cstdint>
#include <cstring>
#define DEVICE static inline
#define EACH_THREAD(t) for (int t = 0; t < THREADS; ++t)
#define NEXT_PHASE()
DEVICE float as_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
DEVICE uint32_t as_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }
DEVICE float inverse_root(float x) { return 1.0f / std::sqrt(x); }
DEVICE float exponential(float x) { return std::exp(x); }
#endif

namespace gpu_norm {

// Threads of a block, and how many of them are next to each other along the channels.
constexpr int THREADS = 256, COLUMNS = 32, ROWS = THREADS / COLUMNS;

struct Bf16 {
    uint16_t bits;
};

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(Bf16 x) { return as_float(static_cast<uint32_t>(x.bits) << 16); }
DEVICE void from_float(float x, float &to) { to = x; }
// To the nearest, ties to even.
DEVICE void from_float(float x, Bf16 &to) {
    const uint32_t bits = as_bits(x);
    to.bits = static_cast<uint16_t>(x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0u);
}

// V values that are read and written together.
template <typename T, int V> struct alignas(V * sizeof(T)) Pack {
    T values[V];
};

// One or two tensors whose channels are concatenated. Null where there is none.
struct Parts {
    void *at[2];
    int channels[2];
};

struct Job {
    Parts x, dx, passed; // passed: added to dx
    const void *dy;
    void *y;
    const float *offset, *gain, *bias; // tables; offset may be null
    int offset_rows, gain_rows, bias_rows; // 1, or one for each sample
    // Per sample and channel: subtracted from x; reciprocal standard deviation; mean of x; gradients.
    float *centre, *rstd, *channel_mean, *d_offset, *d_gain, *d_bias;
    // Per sample and channel: what dx subtracts.
    float *plain, *along;
    float *partial; // [batch, chunks, 2, channels]
    int64_t pixels;
    int batch, channels, groups, chunks, chunk_pixels;
    float eps;
    bool silu;
};

// The table's value for a sample and channel.
DEVICE float entry(const float *table, int rows, int channels, int b, int c) {
    return table ? table[(rows == 1 ? 0 : static_cast<int64_t>(b) * channels) + c] : 0.0f;
}

template <typename T, int V> DEVICE Pack<T, V> *pack_at(const Parts &parts, int64_t pixel, int c) {
    const int part = c >= parts.channels[0];
    const int own = part ? c - parts.channels[0] : c;
    T *base = static_cast<T *>(parts.at[part]);
    return base ? reinterpret_cast<Pack<T, V> *>(base + pixel * parts.channels[part] + own) : nullptr;
}

DEVICE float sigmoid(float z) { return 1.0f / (1.0f + exponential(-z)); }

// The gradient at z, from that after the activation.
DEVICE float through(bool silu, float dy, float z) {
    if (!silu) return dy;
    const float s = sigmoid(z);
    return dy * s * (1.0f + z * (1.0f - s));
}

// Sums over a chunk of pixels, for each channel. Forward: of x - k and its square, with k the first pixel's x, so that no
// digits are lost. Backward: of dz and dz times the normalised x. Grid: (chunks, columns of channels, batch).
template <typename T, int V, bool backward> DEVICE void sums(const Job &j, int chunk, int column, int b, float *shared) {
    const int64_t sample = static_cast<int64_t>(b) * j.pixels;
    const int64_t begin = static_cast<int64_t>(chunk) * j.chunk_pixels;
    const int64_t end = begin + j.chunk_pixels < j.pixels ? begin + j.chunk_pixels : j.pixels;
    EACH_THREAD(t) {
        const int c = (column * COLUMNS + t % COLUMNS) * V;
        float one[V] = {}, two[V] = {};
        if (c < j.channels) {
            float shift[V], rstd[V], gain[V], bias[V];
            const Pack<T, V> first = *pack_at<T, V>(j.x, sample, c);
            for (int v = 0; v < V; ++v) {
                const int64_t at = static_cast<int64_t>(b) * j.channels + c + v;
                shift[v] = backward ? j.centre[at] : to_float(first.values[v]);
                if (!backward) continue;
                rstd[v] = j.rstd[at];
                gain[v] = entry(j.gain, j.gain_rows, j.channels, b, c + v);
                bias[v] = entry(j.bias, j.bias_rows, j.channels, b, c + v);
            }
            for (int64_t p = begin + t / COLUMNS; p < end; p += ROWS) {
                const Pack<T, V> x = *pack_at<T, V>(j.x, sample + p, c);
                Pack<T, V> dy{};
                if (backward)
                    dy = *reinterpret_cast<const Pack<T, V> *>(static_cast<const T *>(j.dy) + (sample + p) * j.channels + c);
                for (int v = 0; v < V; ++v) {
                    const float centred = to_float(x.values[v]) - shift[v];
                    if (backward) {
                        const float normalised = centred * rstd[v];
                        const float dz = through(j.silu, to_float(dy.values[v]), normalised * gain[v] + bias[v]);
                        one[v] += dz;
                        two[v] += dz * normalised;
                    } else {
                        one[v] += centred;
                        two[v] += centred * centred;
                    }
                }
            }
        }
        for (int v = 0; v < V; ++v) {
            shared[(0 * V + v) * THREADS + t] = one[v];
            shared[(1 * V + v) * THREADS + t] = two[v];
        }
    }
    NEXT_PHASE();
    EACH_THREAD(t) {
        const int c = (column * COLUMNS + t) * V;
        if (t < COLUMNS && c < j.channels) {
            float *to = j.partial + (static_cast<int64_t>(b) * j.chunks + chunk) * 2 * j.channels;
            for (int which = 0; which < 2; ++which)
                for (int v = 0; v < V; ++v) {
                    float sum = 0;
                    for (int row = 0; row < ROWS; ++row) sum += shared[(which * V + v) * THREADS + row * COLUMNS + t];
                    to[which * j.channels + c + v] = sum;
                }
        }
    }
}

// From the sums to the statistics, or to the gradients of the tables and what dx needs. Grid: (batch). `shared` holds two
// values for each channel.
template <typename T, bool backward> DEVICE void finish(const Job &j, int b, float *shared) {
    const int64_t row = static_cast<int64_t>(b) * j.channels;
    const float n = static_cast<float>(j.pixels);
    EACH_THREAD(t) {
        for (int c = t; c < j.channels; c += THREADS) {
            float one = 0, two = 0;
            for (int chunk = 0; chunk < j.chunks; ++chunk) {
                const float *from = j.partial + (static_cast<int64_t>(b) * j.chunks + chunk) * 2 * j.channels;
                one += from[c];
                two += from[j.channels + c];
            }
            if (backward) {
                const float gain = entry(j.gain, j.gain_rows, j.channels, b, c);
                j.d_bias[row + c] = one;
                j.d_gain[row + c] = two;
                shared[c] = gain * one;
                shared[j.channels + c] = gain * two;
            } else {
                const float first = to_float(pack_at<T, 1>(j.x, static_cast<int64_t>(b) * j.pixels, c)->values[0]);
                const float mean = first + one / n;
                j.channel_mean[row + c] = mean;
                shared[c] = mean + entry(j.offset, j.offset_rows, j.channels, b, c);
                shared[j.channels + c] = two - one * (one / n); // the sum of squared deviations from the channel's mean
            }
        }
    }
    NEXT_PHASE();
    EACH_THREAD(t) {
        const int width = j.channels / j.groups;
        for (int g = t; g < j.groups; g += THREADS) {
            float one = 0, two = 0;
            for (int c = g * width; c < (g + 1) * width; ++c) one += shared[c];
            one /= static_cast<float>(width);
            for (int c = g * width; c < (g + 1) * width; ++c) {
                const float apart = shared[c] - one;
                two += backward ? shared[j.channels + c] : shared[j.channels + c] + n * apart * apart;
            }
            two /= static_cast<float>(width) * n;
            for (int c = g * width; c < (g + 1) * width; ++c) {
                const int64_t at = row + c;
                if (backward) {
                    const float plain = one / n, along = two, rstd = j.rstd[at];
                    j.plain[at] = plain;
                    j.along[at] = along;
                    const float gain = entry(j.gain, j.gain_rows, j.channels, b, c);
                    const float normalised = n * (j.channel_mean[at] - j.centre[at]) * rstd; // its sum over the pixels
                    j.d_offset[at] = rstd * (gain * j.d_bias[at] - n * plain - normalised * along);
                } else {
                    j.centre[at] = one - entry(j.offset, j.offset_rows, j.channels, b, c);
                    j.rstd[at] = inverse_root(two + j.eps);
                }
            }
        }
    }
}

// y, or dx, for V channels of one pixel. Grid: (pixels and columns of channels, batch).
template <typename T, int V, bool backward> DEVICE void apply(const Job &j, int64_t block, int b) {
    EACH_THREAD(t) {
        const int columns = j.channels / V;
        const int64_t item = block * THREADS + t;
        if (item < j.pixels * columns) {
            const int64_t pixel = static_cast<int64_t>(b) * j.pixels + item / columns;
            const int c = static_cast<int>(item % columns) * V;
            const Pack<T, V> x = *pack_at<T, V>(j.x, pixel, c);
            Pack<T, V> dy{}, passed{}, out;
            if (backward) {
                dy = *reinterpret_cast<const Pack<T, V> *>(static_cast<const T *>(j.dy) + pixel * j.channels + c);
                if (const auto *from = pack_at<T, V>(j.passed, pixel, c)) passed = *from;
            }
            for (int v = 0; v < V; ++v) {
                const int64_t at = static_cast<int64_t>(b) * j.channels + c + v;
                const float normalised = (to_float(x.values[v]) - j.centre[at]) * j.rstd[at];
                const float gain = entry(j.gain, j.gain_rows, j.channels, b, c + v);
                const float z = normalised * gain + entry(j.bias, j.bias_rows, j.channels, b, c + v);
                if (backward) {
                    const float dz = through(j.silu, to_float(dy.values[v]), z);
                    const float d = j.rstd[at] * (gain * dz - j.plain[at] - normalised * j.along[at]);
                    from_float(d + to_float(passed.values[v]), out.values[v]);
                } else {
                    from_float(j.silu ? z * sigmoid(z) : z, out.values[v]);
                }
            }
            if (backward) {
                *pack_at<T, V>(j.dx, pixel, c) = out;
            } else {
                *reinterpret_cast<Pack<T, V> *>(static_cast<T *>(j.y) + pixel * j.channels + c) = out;
            }
        }
    }
}

} // namespace gpu_norm

#ifdef __CUDACC_RTC__
// Compiled for one element type and pack size, TYPE and PACK.
extern __shared__ float shared_[];
#define KERNELS(direction, backward)                                                                                       \
    extern "C" __global__ void sums_##direction(gpu_norm::Job j) {                                                         \
        gpu_norm::sums<TYPE, PACK, backward>(j, blockIdx.x, blockIdx.y, blockIdx.z, shared_);                              \
    }                                                                                                                      \
    extern "C" __global__ void finish_##direction(gpu_norm::Job j) {                                                       \
        gpu_norm::finish<TYPE, backward>(j, blockIdx.x, shared_);                                                          \
    }                                                                                                                      \
    extern "C" __global__ void apply_##direction(gpu_norm::Job j) {                                                        \
        gpu_norm::apply<TYPE, PACK, backward>(j, blockIdx.x, blockIdx.y);                                                  \
    }
KERNELS(forward, false)
KERNELS(backward, true)
#endif
