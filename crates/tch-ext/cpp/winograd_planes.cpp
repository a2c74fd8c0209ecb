// Winograd convolutions for inference: the weights are transformed once, and what is added to the result is added while it
// is in registers.
#include "winograd_planes.h"
#include "guarded.h"
#include "processor.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <array>

namespace tch_ext {

const WinogradKernels &winograd_kernels() { return KERNELS_OF_THIS_PROCESSOR(winograd); }

at::Tensor planes_of(const Convolution &c, const at::Tensor &weights, bool backward) {
    auto u = at::empty({16, c.in, c.out}, weights.options());
    auto *const planes = u.mutable_data_ptr<float>();
    const auto *const values = weights.const_data_ptr<float>();
    // Strides of the layer's weights [out, in, 3, 3].
    const int64_t near = 9, far = 9 * weights.size(1);
    at::parallel_for(0, c.in, CHANNELS, [&](int64_t begin, int64_t end) {
        winograd_kernels().transform_weights(c, values, backward ? far : near, backward ? near : far, backward, planes, begin,
                                             end, work_of(9 * c.out).get());
    });
    return u;
}

at::Tensor in_pairs(const at::Tensor &planes) {
    const auto pairs = planes.view({16, planes.size(1) / 2, 2, planes.size(2)});
    return pairs.transpose(2, 3).to(at::kBFloat16).contiguous();
}

at::Tensor convolve(const Convolution &c, const at::Tensor &x, const at::Tensor &planes, const at::Tensor &bias,
                    const at::Tensor &plus) {
    auto y = at::empty({c.batch, c.out, c.height, c.width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
    const auto values_of = [](const at::Tensor &values) {
        return values.defined() ? values.const_data_ptr<float>() : nullptr;
    };
    const auto *const from = values_of(x), *const u = values_of(planes), *const biases = values_of(bias),
                     *const added = values_of(plus);
    auto *const to = y.mutable_data_ptr<float>();
    at::parallel_for(0, c.tiles(), tiles_at_once(c), [&](int64_t begin, int64_t end) {
        winograd_kernels().forward(c, from, u, biases, added, to, begin, end, work_of(forward_work(c)).get());
    });
    return y;
}

} // namespace tch_ext

namespace {

using tch_ext::CHANNELS, tch_ext::Convolution, tch_ext::shape_of;

// Null if there are none for this processor.
tch_ext::Bf16Forward bf16_kernel() {
#ifdef __x86_64__
    return tch_ext::multiplies_bf16() ? tch_ext::winograd_bf16 : nullptr;
#else
    return nullptr;
#endif
}

const uint16_t *halves(const at::Tensor &values) {
    return values.defined() ? static_cast<const uint16_t *>(values.const_data_ptr()) : nullptr;
}

// As convolve(), for x, planes and `plus` in bf16.
at::Tensor convolve_bf16(const Convolution &c, const at::Tensor &x, const at::Tensor &planes, const at::Tensor &bias,
                         const at::Tensor &plus) {
    const auto kernel = bf16_kernel();
    TORCH_CHECK(kernel, "this processor has no kernels for convolutions in bf16");
    auto y = at::empty({c.batch, c.out, c.height, c.width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
    const auto *const from = halves(x), *const u = halves(planes), *const added = halves(plus);
    const auto *const biases = bias.const_data_ptr<float>();
    auto *const to = static_cast<uint16_t *>(y.mutable_data_ptr());
    at::parallel_for(0, c.tiles(), tiles_at_once(c), [&](int64_t begin, int64_t end) {
        const auto sums = tch_ext::work_of(bf16_sums_work(c));
        const auto inputs = std::make_unique_for_overwrite<uint16_t[]>(bf16_inputs_work(c));
        kernel(c, from, u, biases, added, to, begin, end, sums.get(), inputs.get());
    });
    return y;
}

} // namespace

bool tch_ext::planes_in_bf16_are_fastest() { return bf16_kernel() && !multiplies_bf16_in_tiles(); }

extern "C" {

// The transformed weights of the f32 `weights` [out, in, 3, 3]: f32 [16, in, out] or, if `bf16`, [16, in / 2, out, 2]. The
// caller must release `*planes`.
char *tch_ext_winograd_planes(const at::Tensor *weights, bool bf16, at::Tensor **planes) {
    return tch_ext::guarded([&] {
        const auto size = weights->sizes();
        TORCH_CHECK(size.size() == 4 && size[2] == 3 && size[3] == 3 && size[0] % CHANNELS == 0 && size[1] % CHANNELS == 0 &&
                        weights->is_cpu() && weights->scalar_type() == at::kFloat,
                    "f32 weights [out, in, 3, 3] on the CPU of channels in multiples of ", CHANNELS, " are required, not ",
                    size);
        const at::NoGradGuard no_grad;
        const auto all = tch_ext::planes_of({0, 0, 0, size[1], size[0]}, weights->contiguous(), false);
        *planes = new at::Tensor(bf16 ? tch_ext::in_pairs(all) : all);
    });
}

// The convolution of x [B, in, H, W] with these planes at stride 1 and padding 1, plus the f32 `bias` [out] and `plus`
// [B, out, H, W] of the type of x, which may be null; without gradients, in the type of x. The caller must release `*y`.
char *tch_ext_winograd_with_planes(const at::Tensor *x, const at::Tensor *planes, const at::Tensor *bias,
                                   const at::Tensor *plus, at::Tensor **y) {
    return tch_ext::guarded([&] {
        const at::NoGradGuard no_grad;
        const auto kind = x->scalar_type(), type = planes->scalar_type();
        const bool pairs = type == at::kBFloat16;
        TORCH_CHECK(planes->is_cpu() && planes->is_contiguous() && planes->dim() == (pairs ? 4 : 3) &&
                        (pairs || type == at::kFloat),
                    "transformed weights are required, not ", planes->sizes());
        const int64_t in = planes->size(1) * (pairs ? 2 : 1), out = planes->size(2);
        TORCH_CHECK(x->is_cpu() && x->dim() == 4 && x->size(1) == in && bias->is_cpu() && bias->dim() == 1 &&
                        bias->size(0) == out && bias->scalar_type() == at::kFloat,
                    "images ", x->sizes(), " and a bias ", bias->sizes(), " do not fit ", in, " to ", out, " channels");
        TORCH_CHECK(pairs ? kind == at::kBFloat16 : kind == at::kFloat || kind == at::kBFloat16,
                    "images in f32 or bf16 are required, in bf16 for weights in bf16");
        const auto c = shape_of(*x, out);
        TORCH_CHECK(!plus || (plus->is_cpu() && plus->scalar_type() == kind &&
                              plus->sizes() == c10::IntArrayRef({c.batch, c.out, c.height, c.width})),
                    "what is added must have the shape and type of the result");
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        const std::array<const c10::IValue, 2> inputs{*x, *planes};
        if (guard.isActive()) guard.before("tch_ext::winograd_with_planes", c10::ArrayRef<const c10::IValue>(inputs));
        const auto prepared = [](const at::Tensor &images) { return images.contiguous(at::MemoryFormat::ChannelsLast); };
        const auto images = prepared(*x), added = plus ? prepared(*plus) : at::Tensor(), biases = bias->contiguous();
        at::Tensor result;
        if (pairs) {
            result = convolve_bf16(c, images, *planes, biases, added);
        } else {
            const auto exact = added.defined() ? added.to(at::kFloat) : added;
            result = tch_ext::convolve(c, images.to(at::kFloat), *planes, biases, exact).to(kind);
        }
        if (guard.isActive()) guard.setOutputs(std::vector<c10::IValue>{result});
        *y = new at::Tensor(result);
    });
}
}
