// Group norm, fused with the operations around it in a U-Net: the concatenation and the addition before it, the affine
// map of each sample, the SiLU after it and, in backward, the gradient of a residual connection around it. It needs few
// passes over memory where libtorch needs many, with channels last: on the CPU by the kernels of group_norm_kernels.cpp,
// on a GPU by those of group_norm_gpu.h. Elsewhere, and on a GPU for which these cannot be compiled, it is composed of
// libtorch's own operations.
#include "gpu_kernels.h"
#include "group_norm_kernels.h"
#include "group_norm_on_gpu.h"
#include "guarded.h"
#include "processor.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace {

using at::MemoryFormat;
using tch_ext::Bf16, tch_ext::Inputs, tch_ext::Kernels, tch_ext::Parts, tch_ext::Sample;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const tch_ext::AllKernels &kernels_of_this_processor() { return KERNELS_OF_THIS_PROCESSOR(tch_ext::group_norm); }
const Kernels<float> &kernels(float) { return kernels_of_this_processor().f32; }
const Kernels<Bf16> &kernels(Bf16) { return kernels_of_this_processor().bf16; }

// Sample b's row of a table `[B, C]`, or the only row of `[1, C]`; null if the table is undefined.
const float *row_of(const Tensor &table, int64_t b) {
    if (!table.defined()) return nullptr;
    return table.const_data_ptr<float>() + (table.size(0) == 1 ? 0 : b * table.size(1));
}

int64_t channels_of(const Tensor &input) { return input.defined() ? input.size(1) : 0; }

// Sample b of both; null if undefined.
template <typename T> Parts<T> sample_of(const Inputs &inputs, int64_t b) {
    Parts<T> parts{};
    for (int i = 0; i < 2; ++i) {
        if (!inputs[i].defined()) continue;
        // The constness of T says whether the caller writes.
        auto *data = static_cast<std::remove_const_t<T> *>(inputs[i].data_ptr());
        parts.channels[i] = channels_of(inputs[i]);
        parts.at[i] = data + b * parts.channels[i] * inputs[i].size(2) * inputs[i].size(3);
    }
    return parts;
}

struct Shape {
    int64_t batch, channels, pixels, groups;

    Shape(const Inputs &x, int64_t groups)
        : batch(x[0].size(0)), channels(channels_of(x[0]) + channels_of(x[1])), pixels(x[0].size(2) * x[0].size(3)),
          groups(groups) {}

    Sample sample(const Tensor &offset, const Tensor &gain, const Tensor &bias, int64_t b) const {
        return {pixels, channels, groups, row_of(offset, b), row_of(gain, b), row_of(bias, b)};
    }
};

// Calls body(b, work) for each sample b, with a work buffer of this size.
template <typename Body> void for_each_sample(int64_t batch, int64_t work_size, Body body) {
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
        const auto work = std::make_unique_for_overwrite<float[]>(work_size);
        for (int64_t b = begin; b < end; ++b) body(b, work.get());
    });
}

template <typename T>
void forward_batch(const Shape &shape, const Inputs &x, const Tensor &offset, const Tensor &gain, const Tensor &bias,
                   Tensor &y, Tensor &mean, Tensor &rstd, float eps, bool silu) {
    auto *to = static_cast<T *>(y.mutable_data_ptr());
    auto *means = mean.mutable_data_ptr<float>(), *rstds = rstd.mutable_data_ptr<float>();
    for_each_sample(shape.batch, shape.channels, [&](int64_t b, float *work) {
        const int64_t row = b * shape.channels;
        kernels(T{}).forward(shape.sample(offset, gain, bias, b), sample_of<const T>(x, b), to + row * shape.pixels,
                             {means + row, rstds + row}, eps, silu, work);
    });
}

struct Gradients {
    Inputs x;
    Tensor offset, gain, bias;
};

template <typename T>
void backward_batch(const Shape &shape, const Inputs &x, const Tensor &offset, const Tensor &gain, const Tensor &bias,
                    const Tensor &dy, const Inputs &passed, const Tensor &mean, const Tensor &rstd, Gradients &d,
                    bool silu) {
    const auto *upstream = static_cast<const T *>(dy.const_data_ptr());
    auto *means = mean.data_ptr<float>(), *rstds = rstd.data_ptr<float>();
    auto *d_offset = d.offset.mutable_data_ptr<float>(), *d_gain = d.gain.mutable_data_ptr<float>(),
         *d_bias = d.bias.mutable_data_ptr<float>();
    const auto work_size = tch_ext::backward_work(shape.sample(offset, gain, bias, 0));
    for_each_sample(shape.batch, work_size, [&](int64_t b, float *work) {
        const int64_t row = b * shape.channels;
        kernels(T{}).backward(shape.sample(offset, gain, bias, b), sample_of<const T>(x, b), upstream + row * shape.pixels,
                              sample_of<const T>(passed, b), {means + row, rstds + row}, sample_of<T>(d.x, b),
                              {d_offset + row, d_gain + row, d_bias + row}, silu, work);
    });
}

// How this thread computes norms of tensors on the CPU.
enum class OnCpu : int { FUSED, COMPOSED, AS_GPU_KERNELS };
thread_local OnCpu on_cpu = OnCpu::FUSED;

bool by_gpu_kernels(const Tensor &x) { return x.is_cuda() || (x.is_cpu() && on_cpu == OnCpu::AS_GPU_KERNELS); }

struct GroupNorm : torch::autograd::Function<GroupNorm> {
    // Returns the norm, and the inputs again.
    static variable_list forward(AutogradContext *ctx, const Tensor &first, const std::optional<Tensor> &other,
                                 const std::optional<Tensor> &added, const Tensor &gain, const Tensor &bias,
                                 int64_t groups, double eps, bool silu) {
        RECORD_FUNCTION("tch_ext::group_norm", c10::ArrayRef<const c10::IValue>{});
        const auto second = other.value_or(Tensor()), offset = added.value_or(Tensor());
        const Inputs x{first, second};
        ctx->saved_data["groups"] = groups;
        ctx->saved_data["silu"] = silu;
        ctx->set_materialize_grads(false);
        const bool gpu = by_gpu_kernels(first);
        ctx->saved_data["gpu"] = gpu;
        if (gpu) {
            tch_ext::GpuStatistics s;
            auto y = tch_ext::norm_on_gpu(x, {offset, gain, bias}, groups, eps, silu, s);
            ctx->save_for_backward({first, second, offset, gain, bias, s.centre, s.rstd, s.channel_mean});
            return results(y, x);
        }
        const Shape shape{x, groups};
        auto y = at::empty({shape.batch, shape.channels, first.size(2), first.size(3)},
                           first.options().memory_format(MemoryFormat::ChannelsLast));
        auto mean = at::empty({shape.batch, shape.channels}, gain.options());
        auto rstd = at::empty_like(mean);
        const auto run = first.scalar_type() == at::kFloat ? forward_batch<float> : forward_batch<Bf16>;
        run(shape, x, offset, gain, bias, y, mean, rstd, static_cast<float>(eps), silu);
        ctx->save_for_backward({first, second, offset, gain, bias, mean, rstd});
        return results(y, x);
    }

    static variable_list results(const Tensor &y, const Inputs &x) {
        // Autograd would return an input through view(), which for a single image gives ambiguous strides: subsequent
        // operations would then assume that channels are not last. An alias keeps the strides.
        variable_list out{y, x[0].alias()};
        if (x[1].defined()) out.push_back(x[1].alias());
        return out;
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "second-order gradients of the fused group norm are not supported");
        const auto saved = ctx->get_saved_variables();
        const Inputs x{saved[0], saved[1]};
        const auto &offset = saved[2], &gain = saved[3], &bias = saved[4], &mean = saved[5], &rstd = saved[6];
        const auto prepared = [&](const Tensor &gradient) {
            return gradient.defined() ? gradient.to(x[0].scalar_type()).contiguous(MemoryFormat::ChannelsLast) : gradient;
        };
        TORCH_CHECK(upstream[0].defined(), "the result of a group norm was not used");
        const auto dy = prepared(upstream[0]);
        Inputs passed{prepared(upstream[1])};
        if (x[1].defined()) passed[1] = prepared(upstream[2]);
        const auto groups = ctx->saved_data["groups"].toInt();
        const auto silu = ctx->saved_data["silu"].toBool();
        const auto fold = [&](const Tensor &gradient, const Tensor &table) {
            if (!table.defined()) return Tensor();
            return table.size(0) == 1 ? gradient.sum(0, /*keepdim=*/true) : gradient;
        };
        if (ctx->saved_data["gpu"].toBool()) {
            const auto d = tch_ext::norm_backward_on_gpu(x, {offset, gain, bias}, groups, silu, {mean, rstd, saved[7]}, dy,
                                                         passed);
            auto d_gain = d.gain_and_bias[0], d_bias = d.gain_and_bias[1];
            if (gain.size(0) == 1 && bias.size(0) == 1) { // by one sum
                const auto sums = d.gain_and_bias.sum(1, /*keepdim=*/true);
                d_gain = sums[0], d_bias = sums[1];
            } else {
                d_gain = fold(d_gain, gain), d_bias = fold(d_bias, bias);
            }
            return {d.x[0], d.x[1], fold(d.offset, offset), d_gain, d_bias, Tensor(), Tensor(), Tensor()};
        }
        const Shape shape{x, groups};
        Gradients d{{at::empty_like(x[0])}, at::empty_like(mean), at::empty_like(mean), at::empty_like(mean)};
        if (x[1].defined()) d.x[1] = at::empty_like(x[1]);
        const auto run = x[0].scalar_type() == at::kFloat ? backward_batch<float> : backward_batch<Bf16>;
        run(shape, x, offset, gain, bias, dy, passed, mean, rstd, d, silu);
        return {d.x[0],   d.x[1],   fold(d.offset, offset), fold(d.gain, gain), fold(d.bias, bias),
                Tensor(), Tensor(), Tensor()};
    }
};

// Everything stays in the dtype of the inputs; libtorch computes the statistics in f32 and, on a GPU, rounds them to that
// dtype, and it returns channels first there.
Tensor composite(const Inputs &inputs, const Tensor &offset, const Tensor &gain, const Tensor &bias, int64_t groups,
                 double eps, bool silu) {
    auto x = inputs[1].defined() ? at::cat({inputs[0], inputs[1]}, 1) : inputs[0];
    const auto kind = x.scalar_type();
    const auto image = [&](const Tensor &table) { return table.to(kind).unsqueeze(-1).unsqueeze(-1); };
    if (offset.defined()) x = x + image(offset);
    Tensor z;
    if (gain.size(0) == 1 && bias.size(0) == 1) {
        z = at::group_norm(x, groups, gain[0].to(kind), bias[0].to(kind), eps);
    } else {
        z = at::addcmul(image(bias), at::group_norm(x, groups, {}, {}, eps), image(gain));
    }
    // Not in place: backward needs the values before the activation.
    return silu ? at::silu(z) : z;
}

} // namespace

// Sets how this thread computes norms on the CPU, and returns how it did.
extern "C" int tch_ext_set_group_norm(int way) {
    return static_cast<int>(std::exchange(on_cpu, static_cast<OnCpu>(way)));
}

// There are one or two `inputs`, `offset` may be null, and `out` has room for one more.
extern "C" char *tch_ext_group_norm(const at::Tensor *const *inputs, size_t count, const at::Tensor *offset,
                                    const at::Tensor *gain, const at::Tensor *bias, int64_t groups, double eps, bool silu,
                                    at::Tensor **out) {
    return tch_ext::guarded([&] {
        TORCH_CHECK(count == 1 || count == 2, "group norm takes one or two inputs, not ", count);
        Inputs x;
        for (size_t i = 0; i < count; ++i) {
            x[i] = *inputs[i];
            const auto &size = x[i].sizes(), &first = x[0].sizes();
            TORCH_CHECK(size.size() == 4, "group norm takes images [B, C, H, W], not ", size);
            TORCH_CHECK(size[0] == first[0] && size[2] == first[2] && size[3] == first[3] &&
                            x[i].scalar_type() == x[0].scalar_type() && x[i].device() == x[0].device(),
                        "group norm takes inputs that differ only in their channels, not ", first, " and ", size);
        }
        const int64_t channels = channels_of(x[0]) + channels_of(x[1]);
        TORCH_CHECK(groups > 0 && channels % groups == 0, channels, " channels do not divide into ", groups, " groups");
        for (const auto *table : {offset, gain, bias}) {
            if (!table) continue;
            TORCH_CHECK(table->dim() == 2 && (table->size(0) == 1 || table->size(0) == x[0].size(0)) &&
                            table->size(1) == channels && table->scalar_type() == at::kFloat &&
                            table->device() == x[0].device(),
                        "group norm takes f32 tables [B or 1, ", channels, "] on ", x[0].device(), ", not ", table->sizes(),
                        " on ", table->device());
        }
        const auto kind = x[0].scalar_type();
        variable_list results{Tensor(), x[0], x[1]};
        const bool fused = by_gpu_kernels(x[0]) ? tch_ext::fits_gpu_kernels(x[0].size(0), channels) &&
                                                      (x[0].is_cpu() || tch_ext::has_gpu_kernels(x[0].get_device()))
                                                : x[0].is_cpu() && on_cpu == OnCpu::FUSED;
        if (fused && (kind == at::kFloat || kind == at::kBFloat16)) {
            for (auto &input : x)
                if (input.defined()) input = input.contiguous(MemoryFormat::ChannelsLast);
            // An input may be absent, but not undefined.
            const auto second = count == 2 ? std::optional(x[1]) : std::nullopt;
            const auto added = offset ? std::optional(offset->contiguous()) : std::nullopt;
            results = GroupNorm::apply(x[0], second, added, gain->contiguous(), bias->contiguous(), groups,
                                       eps, silu);
        } else {
            results[0] = composite(x, offset ? *offset : Tensor(), *gain, *bias, groups, eps, silu);
        }
        // All of them or none: if one cannot be allocated, the previous ones are freed.
        std::vector<std::unique_ptr<at::Tensor>> owned;
        for (size_t i = 0; i <= count; ++i) owned.push_back(std::make_unique<at::Tensor>(results[i]));
        for (size_t i = 0; i <= count; ++i) out[i] = owned[i].release();
    });
}
