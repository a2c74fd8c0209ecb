// 3x3 convolutions by Winograd's algorithm, with their gradients, on the CPU in f32. libtorch's own convolutions need
// 2.25 times as many multiplications.
#include "guarded.h"
#include "processor.h"
#include "winograd_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

namespace {

using at::MemoryFormat;
using tch_ext::Convolution;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const tch_ext::WinogradKernels &kernels() { return KERNELS_OF_THIS_PROCESSOR(tch_ext::winograd); }

// A multiple of the vector length of all processors.
constexpr int64_t CHANNELS = 16;
// Maximum input channels of one part of a weight gradient: large enough that the upstream gradient is not transformed
// too often.
constexpr int64_t MAX_CHANNELS_OF_A_PART = 96;

auto work_of(int64_t size) { return std::make_unique_for_overwrite<float[]>(size); }

// Images [B, in, H, W] become [B, out, H, W].
Convolution shape_of(const Tensor &x, int64_t out) { return {x.size(0), x.size(2), x.size(3), x.size(1), out}; }

Convolution reversed(Convolution c) {
    std::swap(c.in, c.out);
    return c;
}

// The convolution `c` of x with the `weights` of the layer or, if `backward`, of the upstream gradient x with the
// flipped weights.
Tensor convolve(const Convolution &c, const Tensor &x, const Tensor &weights, const Tensor &bias, bool backward) {
    auto u = at::empty({16, c.in, c.out}, weights.options());
    auto *const planes = u.mutable_data_ptr<float>();
    const auto *const values = weights.const_data_ptr<float>();
    // Strides of the layer's weights [out, in, 3, 3].
    const int64_t near = 9, far = 9 * weights.size(1);
    at::parallel_for(0, c.in, CHANNELS, [&](int64_t begin, int64_t end) {
        kernels().transform_weights(c, values, backward ? far : near, backward ? near : far, backward, planes, begin, end,
                                    work_of(9 * c.out).get());
    });
    auto y = at::empty({c.batch, c.out, c.height, c.width}, x.options().memory_format(MemoryFormat::ChannelsLast));
    const auto *const from = x.const_data_ptr<float>(), *const plus = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
    auto *const to = y.mutable_data_ptr<float>();
    at::parallel_for(0, c.tiles(), tiles_at_once(c), [&](int64_t begin, int64_t end) {
        kernels().forward(c, from, planes, plus, to, begin, end, work_of(forward_work(c)).get());
    });
    return y;
}

Tensor weight_gradient(const Convolution &c, const Tensor &x, const Tensor &dy) {
    auto du = at::empty({16, c.in, c.out}, x.options().memory_format(MemoryFormat::Contiguous));
    const auto *const from = x.const_data_ptr<float>(), *const upstream = dy.const_data_ptr<float>();
    auto *const planes = du.mutable_data_ptr<float>();
    // Four rows of positions, and enough blocks of channels for all threads. No sum is split, so results do not depend
    // on their number.
    const int64_t wanted = std::max<int64_t>(1, at::get_num_threads() / 4);
    const int64_t most = std::min(MAX_CHANNELS_OF_A_PART, (c.in / CHANNELS + wanted - 1) / wanted * CHANNELS);
    const int64_t blocks = (c.in + most - 1) / most;
    at::parallel_for(0, 4 * blocks, 1, [&](int64_t begin, int64_t end) {
        const auto work = work_of(weight_work(c, most));
        for (int64_t part = begin; part < end; ++part) {
            const int64_t first = part / 4 * most;
            kernels().weight_gradient(c, from, upstream, planes, part % 4, first, std::min(first + most, c.in), work.get());
        }
    });
    auto gradient = at::empty({c.out, c.in, 3, 3}, x.options().memory_format(MemoryFormat::Contiguous));
    auto *const values = gradient.mutable_data_ptr<float>();
    at::parallel_for(0, c.in, CHANNELS,
                     [&](int64_t begin, int64_t end) { kernels().restore_weights(c, planes, values, begin, end); });
    return gradient;
}

struct Winograd : torch::autograd::Function<Winograd> {
    // x, and so the result, may be bf16: that halves the memory saved for backward. Sums are f32 in any case.
    static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weights, const Tensor &bias) {
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        const std::array<const c10::IValue, 2> inputs{x, weights};
        if (guard.isActive()) guard.before("tch_ext::winograd", c10::ArrayRef<const c10::IValue>(inputs));
        ctx->save_for_backward({x, weights});
        auto y = convolve(shape_of(x, weights.size(0)), x.to(at::kFloat), weights, bias, false).to(x.scalar_type());
        if (guard.isActive()) guard.setOutputs(std::vector<c10::IValue>{y});
        return y;
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "second-order gradients of this convolution are not supported");
        const auto saved = ctx->get_saved_variables();
        const auto &x = saved[0], &weights = saved[1];
        const auto dy = upstream[0].to(at::kFloat).contiguous(MemoryFormat::ChannelsLast);
        const auto c = shape_of(x, weights.size(0));
        variable_list d(3);
        if (ctx->needs_input_grad(0)) {
            RECORD_FUNCTION("tch_ext::winograd_backward", c10::ArrayRef<const c10::IValue>{});
            d[0] = convolve(reversed(c), dy, weights, Tensor(), true).to(x.scalar_type());
        }
        if (ctx->needs_input_grad(1)) {
            RECORD_FUNCTION("tch_ext::winograd_weights", c10::ArrayRef<const c10::IValue>{});
            d[1] = weight_gradient(c, x.to(at::kFloat), dy);
        }
        if (ctx->needs_input_grad(2)) d[2] = dy.sum({0, 2, 3});
        return d;
    }
};

std::atomic<bool> allowed{true};

} // namespace

extern "C" {

void tch_ext_allow_winograd(bool allow) { allowed = allow; }

// bf16 only for processors that cannot multiply it: others have faster algorithms.
bool tch_ext_winograd_applies(const at::Tensor *x, int64_t in, int64_t out) {
    const auto kind = x->scalar_type();
    return allowed && x->is_cpu() && (kind == at::kFloat || (kind == at::kBFloat16 && !tch_ext::multiplies_bf16())) &&
           in % CHANNELS == 0 && out % CHANNELS == 0;
}

// The convolution of x [B, in, H, W], f32 or bf16, with f32 weights [out, in, 3, 3] at stride 1 and padding 1, in the
// type of x; the caller must release `*y`.
char *tch_ext_winograd(const at::Tensor *x, const at::Tensor *weights, const at::Tensor *bias, at::Tensor **y) {
    return tch_ext::guarded([&] {
        const auto size = weights->sizes();
        TORCH_CHECK(size.size() == 4 && size[2] == 3 && size[3] == 3 && size[0] % CHANNELS == 0 && size[1] % CHANNELS == 0,
                    "weights [out, in, 3, 3] of channels in multiples of ", CHANNELS, " are required, not ", size);
        TORCH_CHECK(x->dim() == 4 && x->size(1) == size[1] && bias->dim() == 1 && bias->size(0) == size[0],
                    "images ", x->sizes(), " and a bias ", bias->sizes(), " do not fit weights ", size);
        TORCH_CHECK(x->is_cpu() && (x->scalar_type() == at::kFloat || x->scalar_type() == at::kBFloat16) &&
                        weights->is_cpu() && weights->scalar_type() == at::kFloat && bias->is_cpu() &&
                        bias->scalar_type() == at::kFloat,
                    "images in f32 or bf16 on the CPU, and weights and bias in f32, are required");
        *y = new at::Tensor(
            Winograd::apply(x->contiguous(MemoryFormat::ChannelsLast), weights->contiguous(), bias->contiguous()));
    });
}
}
