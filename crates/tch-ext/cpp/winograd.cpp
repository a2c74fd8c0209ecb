// 3x3 convolutions by Winograd's algorithm, with their gradients, on the CPU. libtorch's own convolutions need
// four times as many multiplications.
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
using tch_ext::CHANNELS, tch_ext::Convolution, tch_ext::ImageKernels, tch_ext::WEIGHT_PARTS, tch_ext::winograd_kernels;
using tch_ext::convolve, tch_ext::planes_of, tch_ext::shape_of, tch_ext::values_of, tch_ext::work_of;
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

// The input channels of a part of a weight gradient: few enough for all threads to have as many parts, if possible, but at
// most twice as many parts as there are threads.
int64_t channels_of_a_part(const Convolution &c) {
    const int64_t threads = at::get_num_threads(), blocks_of_channels = c.in / CHANNELS;
    int64_t blocks = 1;
    while (blocks < blocks_of_channels && WEIGHT_PARTS * blocks < 2 * threads && WEIGHT_PARTS * blocks % threads != 0) ++blocks;
    return std::min(MAX_CHANNELS_OF_A_PART, (blocks_of_channels + blocks - 1) / blocks * CHANNELS);
}

Tensor weight_gradient(const Convolution &c, const Tensor &x, const Tensor &dy) {
    const auto in_f32 = x.options().dtype(at::kFloat).memory_format(MemoryFormat::Contiguous);
    auto du = at::empty({tch_ext::PLANES, c.in, c.out}, in_f32);
    auto *const planes = du.mutable_data_ptr<float>();
    const auto transformed = [&]<typename T>(const ImageKernels<T> &kernels) {
        const auto *const from = values_of<T>(x), *const upstream = values_of<T>(dy);
        // No sum is split, so results do not depend on the number of threads.
        const int64_t most = channels_of_a_part(c), blocks = (c.in + most - 1) / most;
        at::parallel_for(0, WEIGHT_PARTS * blocks, 1, [&](int64_t begin, int64_t end) {
            const auto work = work_of(weight_work(c, most));
            for (int64_t part = begin; part < end; ++part) {
                const int64_t first = part / WEIGHT_PARTS * most, last = std::min(first + most, c.in);
                kernels.weight_gradient(c, from, upstream, planes, part % WEIGHT_PARTS, first, last, work.get());
            }
        });
    };
    if (x.scalar_type() == at::kBFloat16) {
        transformed(winograd_kernels().bf16);
    } else {
        transformed(winograd_kernels().f32);
    }
    auto gradient = at::empty({c.out, c.in, 3, 3}, in_f32);
    auto *const values = gradient.mutable_data_ptr<float>();
    at::parallel_for(0, c.in, CHANNELS, [&](int64_t begin, int64_t end) {
        winograd_kernels().restore_weights(c, planes, values, begin, end);
    });
    return gradient;
}

// The type in which transformed weights are multiplied with x fastest.
at::ScalarType kind_of_planes(const Tensor &x) {
    return x.scalar_type() == at::kBFloat16 && tch_ext::planes_in_bf16_are_fastest() ? at::kBFloat16 : at::kFloat;
}

struct Winograd : torch::autograd::Function<Winograd> {
    // x, and so the result, may be bf16: that halves the memory saved for backward. Sums, and the gradient of the weights,
    // are f32 in any case.
    static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weights, const Tensor &bias) {
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        const std::array<const c10::IValue, 2> inputs{x, weights};
        if (guard.isActive()) guard.before("tch_ext::winograd", c10::ArrayRef<const c10::IValue>(inputs));
        ctx->save_for_backward({x, weights});
        const auto c = shape_of(x, weights.size(0));
        auto y = convolve(c, x, planes_of(c, weights, false, kind_of_planes(x)), bias, Tensor());
        if (guard.isActive()) guard.setOutputs(std::vector<c10::IValue>{y});
        return y;
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "second-order gradients of this convolution are not supported");
        const auto saved = ctx->get_saved_variables();
        const auto &x = saved[0], &weights = saved[1];
        const auto dy = upstream[0].contiguous(MemoryFormat::ChannelsLast);
        const auto c = shape_of(x, weights.size(0));
        variable_list d(3);
        if (ctx->needs_input_grad(0)) {
            RECORD_FUNCTION("tch_ext::winograd_backward", c10::ArrayRef<const c10::IValue>{});
            const auto back = reversed(c);
            d[0] = convolve(back, dy, planes_of(back, weights, true, kind_of_planes(x)), Tensor(), Tensor());
        }
        if (ctx->needs_input_grad(1)) {
            RECORD_FUNCTION("tch_ext::winograd_weights", c10::ArrayRef<const c10::IValue>{});
            d[1] = weight_gradient(c, x, dy);
        }
        if (ctx->needs_input_grad(2)) d[2] = dy.sum({0, 2, 3}, false, at::kFloat);
        return d;
    }
};

std::atomic<bool> allowed{true};

} // namespace

extern "C" {

void tch_ext_allow_winograd(bool allow) { allowed = allow; }

// 1 or 2 if a convolution of x is fastest in this way, with transformed weights in f32 or bf16; otherwise 0, as for bf16 where
// the processor has a matrix unit for it.
int tch_ext_winograd_planes_for(const at::Tensor *x, int64_t in, int64_t out) {
    if (!allowed || !x->is_cpu() || in % CHANNELS != 0 || out % CHANNELS != 0) return 0;
    const auto kind = x->scalar_type();
    if (kind_of_planes(*x) == at::kBFloat16) return 2;
    return kind == at::kFloat || (kind == at::kBFloat16 && !tch_ext::multiplies_bf16()) ? 1 : 0;
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
