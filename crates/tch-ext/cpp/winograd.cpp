// 3x3 convolutions by Winograd's algorithm, with their gradients, on the CPU in f32. libtorch's own convolutions need
// 2.25 times as many multiplications.
#include "guarded.h"
#include "processor.h"
#include "winograd_planes.h"

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
using tch_ext::CHANNELS, tch_ext::Convolution, tch_ext::winograd_kernels;
using tch_ext::convolve, tch_ext::planes_of, tch_ext::shape_of, tch_ext::work_of;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Maximum input channels of one part of a weight gradient: large enough that the upstream gradient is not transformed
// too often.
constexpr int64_t MAX_CHANNELS_OF_A_PART = 96;

Convolution reversed(Convolution c) {
    std::swap(c.in, c.out);
    return c;
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
            winograd_kernels().weight_gradient(c, from, upstream, planes, part % 4, first, std::min(first + most, c.in),
                                               work.get());
        }
    });
    auto gradient = at::empty({c.out, c.in, 3, 3}, x.options().memory_format(MemoryFormat::Contiguous));
    auto *const values = gradient.mutable_data_ptr<float>();
    at::parallel_for(0, c.in, CHANNELS, [&](int64_t begin, int64_t end) {
        winograd_kernels().restore_weights(c, planes, values, begin, end);
    });
    return gradient;
}

struct Winograd : torch::autograd::Function<Winograd> {
    // x, and so the result, may be bf16: that halves the memory saved for backward. Sums are f32 in any case.
    static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weights, const Tensor &bias) {
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        const std::array<const c10::IValue, 2> inputs{x, weights};
        if (guard.isActive()) guard.before("tch_ext::winograd", c10::ArrayRef<const c10::IValue>(inputs));
        ctx->save_for_backward({x, weights});
        const auto c = shape_of(x, weights.size(0));
        auto y = convolve(c, x.to(at::kFloat), planes_of(c, weights, false), bias, Tensor()).to(x.scalar_type());
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
            const auto back = reversed(c);
            d[0] = convolve(back, dy, planes_of(back, weights, true), Tensor(), Tensor()).to(x.scalar_type());
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

// The type of the transformed weights with which a convolution without gradients is fastest: 1 for f32, 2 for bf16, 0 if
// it is faster in another way.
int tch_ext_winograd_planes_for(const at::Tensor *x, int64_t in, int64_t out) {
    if (tch_ext_winograd_applies(x, in, out)) return 1;
    const bool fits = allowed && x->is_cpu() && in % CHANNELS == 0 && out % CHANNELS == 0;
    return fits && x->scalar_type() == at::kBFloat16 && tch_ext::planes_in_bf16_are_fastest() ? 2 : 0;
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
