// Group norm with what surrounds it in a U-Net: the addition before, the affine map of each sample, the SiLU after. One
// pass over memory where libtorch makes five, forward and backward, on the CPU with channels last. libtorch's own
// operations elsewhere.
#include "guarded.h"

#include <ATen/Parallel.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <bit>
#include <cstdint>
#include <vector>

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Compiled once for each of these processors; the loader picks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EACH_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

struct Bf16 {
    uint16_t bits;
};

INLINE float load(float value) { return value; }
INLINE float load(Bf16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
INLINE void store(float &to, float value) { to = value; }
// Rounds to the nearest, ties to even, as libtorch does.
INLINE void store(Bf16 &to, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

// exp to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. Unlike std::exp it becomes vector
// instructions.
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    constexpr float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
    const float n = (x * 1.44269504f + magic) - magic;
    float r = x - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

INLINE float sigmoid(float z) { return 1.0f / (1.0f + exponential(-z)); }

// One sample: its pixels' channels lie side by side. `offset` is added before the norm; z = gain * normalised + bias.
struct Sample {
    int64_t pixels, channels, groups;
    const float *offset, *gain, *bias;
};

// Means over each group of what `per_channel` sums up, handed back to each channel of the group.
INLINE void spread_group_means(const Sample &s, float *per_channel) {
    const int64_t width = s.channels / s.groups;
    for (int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (int64_t c = g * width; c < (g + 1) * width; ++c) sum += per_channel[c];
        const float mean = static_cast<float>(sum / static_cast<double>(width * s.pixels));
        for (int64_t c = g * width; c < (g + 1) * width; ++c) per_channel[c] = mean;
    }
}

// `mean` takes in the offset: what is subtracted from x itself.
template <bool silu, typename T>
INLINE void forward_sample(const Sample &s, const T *__restrict x, T *__restrict y, float *__restrict mean,
                           float *__restrict rstd, float eps, float *__restrict work) {
    const int64_t n = s.channels;
    float *__restrict sum = work;
    for (int64_t c = 0; c < n; ++c) sum[c] = s.offset[c] * static_cast<float>(s.pixels);
    for (int64_t p = 0; p < s.pixels; ++p) {
        const T *__restrict row = x + p * n;
        for (int64_t c = 0; c < n; ++c) sum[c] += load(row[c]);
    }
    spread_group_means(s, sum);
    for (int64_t c = 0; c < n; ++c) mean[c] = sum[c] - s.offset[c];
    for (int64_t c = 0; c < n; ++c) sum[c] = 0;
    for (int64_t p = 0; p < s.pixels; ++p) {
        const T *__restrict row = x + p * n;
        for (int64_t c = 0; c < n; ++c) {
            const float centred = load(row[c]) - mean[c];
            sum[c] += centred * centred;
        }
    }
    spread_group_means(s, sum);
    for (int64_t c = 0; c < n; ++c) rstd[c] = 1.0f / std::sqrt(sum[c] + eps);
    float *__restrict slope = work;
    float *__restrict intercept = work + n;
    for (int64_t c = 0; c < n; ++c) slope[c] = rstd[c] * s.gain[c];
    for (int64_t c = 0; c < n; ++c) intercept[c] = s.bias[c] - mean[c] * slope[c];
    for (int64_t p = 0; p < s.pixels; ++p) {
        const T *__restrict from = x + p * n;
        T *__restrict to = y + p * n;
        for (int64_t c = 0; c < n; ++c) {
            const float z = load(from[c]) * slope[c] + intercept[c];
            store(to[c], silu ? z * sigmoid(z) : z);
        }
    }
}

// The derivative of the SiLU at z times `dy`.
INLINE float through_silu(float z, float dy) {
    const float share = sigmoid(z);
    return dy * share * (1.0f + z * (1.0f - share));
}

// Gradients of gain, bias and offset go to d_gain, d_bias and d_offset `[channels]`.
template <bool silu, typename T>
INLINE void backward_sample(const Sample &s, const T *__restrict x, const T *__restrict dy, T *__restrict dx,
                            const float *__restrict mean, const float *__restrict rstd, float *__restrict d_gain,
                            float *__restrict d_bias, float *__restrict d_offset, float *__restrict work) {
    const int64_t n = s.channels;
    const float *__restrict gain = s.gain;
    const float *__restrict bias = s.bias;
    for (int64_t c = 0; c < n; ++c) d_gain[c] = d_bias[c] = d_offset[c] = 0;
    for (int64_t p = 0; p < s.pixels; ++p) {
        const T *__restrict row = x + p * n;
        const T *__restrict upstream = dy + p * n;
        for (int64_t c = 0; c < n; ++c) {
            const float normalised = (load(row[c]) - mean[c]) * rstd[c];
            float dz = load(upstream[c]);
            if (silu) dz = through_silu(normalised * gain[c] + bias[c], dz);
            d_gain[c] += dz * normalised;
            d_bias[c] += dz;
        }
    }
    // What the group's mean and spread pass back: means over the group of gain * dz, plain and times the normalised x.
    float *__restrict plain = work;
    float *__restrict along = work + n;
    for (int64_t c = 0; c < n; ++c) plain[c] = gain[c] * d_bias[c];
    for (int64_t c = 0; c < n; ++c) along[c] = gain[c] * d_gain[c];
    spread_group_means(s, plain);
    spread_group_means(s, along);
    for (int64_t p = 0; p < s.pixels; ++p) {
        const T *__restrict row = x + p * n;
        const T *__restrict upstream = dy + p * n;
        T *__restrict to = dx + p * n;
        for (int64_t c = 0; c < n; ++c) {
            const float normalised = (load(row[c]) - mean[c]) * rstd[c];
            float dz = load(upstream[c]);
            if (silu) dz = through_silu(normalised * gain[c] + bias[c], dz);
            const float d = rstd[c] * (gain[c] * dz - plain[c] - normalised * along[c]);
            d_offset[c] += d;
            store(to[c], d);
        }
    }
}

// The clones must be plain functions.
#define VERSIONS(T, silu, suffix)                                                                                      \
    EACH_PROCESSOR void forward_##suffix(const Sample &s, const T *x, T *y, float *mean, float *rstd, float eps,       \
                                         float *work) {                                                               \
        forward_sample<silu>(s, x, y, mean, rstd, eps, work);                                                          \
    }                                                                                                                  \
    EACH_PROCESSOR void backward_##suffix(const Sample &s, const T *x, const T *dy, T *dx, const float *mean,          \
                                          const float *rstd, float *d_gain, float *d_bias, float *d_offset,            \
                                          float *work) {                                                              \
        backward_sample<silu>(s, x, dy, dx, mean, rstd, d_gain, d_bias, d_offset, work);                               \
    }
VERSIONS(float, false, f32)
VERSIONS(float, true, silu_f32)
VERSIONS(Bf16, false, bf16)
VERSIONS(Bf16, true, silu_bf16)

template <typename T> struct Kernels {
    decltype(&forward_f32) forward;
    decltype(&backward_f32) backward;
};
template <> struct Kernels<Bf16> {
    decltype(&forward_bf16) forward;
    decltype(&backward_bf16) backward;
};
Kernels<float> kernels(float, bool silu) {
    return silu ? Kernels<float>{forward_silu_f32, backward_silu_f32} : Kernels<float>{forward_f32, backward_f32};
}
Kernels<Bf16> kernels(Bf16, bool silu) {
    return silu ? Kernels<Bf16>{forward_silu_bf16, backward_silu_bf16} : Kernels<Bf16>{forward_bf16, backward_bf16};
}

// Sample b's row of a table `[B, C]`, or the one row of `[1, C]`.
const float *row_of(const Tensor &table, int64_t b) {
    return table.const_data_ptr<float>() + (table.size(0) == 1 ? 0 : b * table.size(1));
}

struct Shape {
    int64_t batch, channels, pixels, groups;
    Sample sample(const Tensor &offset, const Tensor &gain, const Tensor &bias, int64_t b) const {
        return {pixels, channels, groups, row_of(offset, b), row_of(gain, b), row_of(bias, b)};
    }
};

template <typename T>
void forward_batch(const Shape &shape, const Tensor &x, const Tensor &offset, const Tensor &gain, const Tensor &bias,
                   Tensor &y, Tensor &mean, Tensor &rstd, float eps, bool silu) {
    const auto *from = static_cast<const T *>(x.const_data_ptr());
    auto *to = static_cast<T *>(y.mutable_data_ptr());
    auto *means = mean.mutable_data_ptr<float>();
    auto *rstds = rstd.mutable_data_ptr<float>();
    const auto forward = kernels(T{}, silu).forward;
    at::parallel_for(0, shape.batch, 1, [&](int64_t begin, int64_t end) {
        std::vector<float> work(2 * shape.channels);
        for (int64_t b = begin; b < end; ++b) {
            const int64_t at = b * shape.pixels * shape.channels, row = b * shape.channels;
            forward(shape.sample(offset, gain, bias, b), from + at, to + at, means + row, rstds + row, eps, work.data());
        }
    });
}

template <typename T>
void backward_batch(const Shape &shape, const Tensor &x, const Tensor &offset, const Tensor &gain, const Tensor &bias,
                    const Tensor &dy, const Tensor &mean, const Tensor &rstd, Tensor &dx, Tensor &d_offset,
                    Tensor &d_gain, Tensor &d_bias, bool silu) {
    const auto *from = static_cast<const T *>(x.const_data_ptr());
    const auto *upstream = static_cast<const T *>(dy.const_data_ptr());
    auto *to = static_cast<T *>(dx.mutable_data_ptr());
    const auto *means = mean.const_data_ptr<float>(), *rstds = rstd.const_data_ptr<float>();
    auto *gains = d_gain.mutable_data_ptr<float>(), *biases = d_bias.mutable_data_ptr<float>(),
         *offsets = d_offset.mutable_data_ptr<float>();
    const auto backward = kernels(T{}, silu).backward;
    at::parallel_for(0, shape.batch, 1, [&](int64_t begin, int64_t end) {
        std::vector<float> work(2 * shape.channels);
        for (int64_t b = begin; b < end; ++b) {
            const int64_t at = b * shape.pixels * shape.channels, row = b * shape.channels;
            backward(shape.sample(offset, gain, bias, b), from + at, upstream + at, to + at, means + row,
                         rstds + row, gains + row, biases + row, offsets + row, work.data());
        }
    });
}

struct GroupNorm : torch::autograd::Function<GroupNorm> {
    static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &offset, const Tensor &gain,
                          const Tensor &bias, int64_t groups, double eps, bool silu) {
        const Shape shape{x.size(0), x.size(1), x.size(2) * x.size(3), groups};
        auto y = at::empty_like(x);
        auto mean = at::empty({shape.batch, shape.channels}, x.options().dtype(at::kFloat).memory_format({}));
        auto rstd = at::empty_like(mean);
        const auto run = x.scalar_type() == at::kFloat ? forward_batch<float> : forward_batch<Bf16>;
        run(shape, x, offset, gain, bias, y, mean, rstd, static_cast<float>(eps), silu);
        ctx->save_for_backward({x, offset, gain, bias, mean, rstd});
        ctx->saved_data["groups"] = groups;
        ctx->saved_data["silu"] = silu;
        return y;
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "the fused group norm has no gradient of its gradient");
        const auto saved = ctx->get_saved_variables();
        const auto &x = saved[0], &offset = saved[1], &gain = saved[2], &bias = saved[3], &mean = saved[4],
                   &rstd = saved[5];
        const Shape shape{x.size(0), x.size(1), x.size(2) * x.size(3), ctx->saved_data["groups"].toInt()};
        const auto dy = upstream[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
        auto dx = at::empty_like(x);
        auto d_offset = at::empty_like(mean), d_gain = at::empty_like(mean), d_bias = at::empty_like(mean);
        const auto run = x.scalar_type() == at::kFloat ? backward_batch<float> : backward_batch<Bf16>;
        run(shape, x, offset, gain, bias, dy, mean, rstd, dx, d_offset, d_gain, d_bias, ctx->saved_data["silu"].toBool());
        const auto fold = [&](const Tensor &gradient, const Tensor &table) {
            return table.size(0) == 1 ? gradient.sum(0, /*keepdim=*/true) : gradient;
        };
        return {dx, fold(d_offset, offset), fold(d_gain, gain), fold(d_bias, bias), Tensor(), Tensor(), Tensor()};
    }
};

// As the fused kernel, in f32 (f64 for x in f64) from the addition to the activation, and rounded to x's type once.
Tensor composite(const Tensor &x, const Tensor &offset, const Tensor &gain, const Tensor &bias, int64_t groups,
                 double eps, bool silu) {
    const auto wide = at::promote_types(x.scalar_type(), at::kFloat);
    const auto image = [&](const Tensor &table) { return table.to(wide).unsqueeze(-1).unsqueeze(-1); };
    const auto z = at::group_norm(x.to(wide) + image(offset), groups, {}, {}, eps) * image(gain) + image(bias);
    return (silu ? at::silu(z) : z).to(x.scalar_type());
}

} // namespace

extern "C" char *tch_ext_group_norm(const at::Tensor *x, const at::Tensor *offset, const at::Tensor *gain,
                                    const at::Tensor *bias, int64_t groups, double eps, bool silu, at::Tensor **out) {
    return tch_ext::guarded([&] {
        TORCH_CHECK(x->dim() == 4, "group norm takes images [B, C, H, W], not ", x->sizes());
        TORCH_CHECK(groups > 0 && x->size(1) % groups == 0, x->size(1), " channels do not divide into ", groups, " groups");
        for (const auto *table : {offset, gain, bias}) {
            TORCH_CHECK(table->dim() == 2 && (table->size(0) == 1 || table->size(0) == x->size(0)) &&
                            table->size(1) == x->size(1) && table->scalar_type() == at::kFloat,
                        "group norm takes f32 tables [B or 1, ", x->size(1), "], not ", table->sizes());
        }
        const auto kind = x->scalar_type();
        if (x->is_cpu() && (kind == at::kFloat || kind == at::kBFloat16)) {
            *out = new at::Tensor(GroupNorm::apply(x->contiguous(at::MemoryFormat::ChannelsLast), offset->contiguous(),
                                                   gain->contiguous(), bias->contiguous(), groups, eps, silu));
        } else {
            *out = new at::Tensor(composite(*x, *offset, *gain, *bias, groups, eps, silu));
        }
    });
}
