// Winograd convolutions in their two halves, and for inference, where the weights are transformed once, and what is added to
// the result is added while it is in registers.
#include "winograd_planes.h"
#include "guarded.h"
#include "processor.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <array>

namespace tch_ext {

// At the least: a multiple of all kernels' rows.
constexpr int64_t TILES_PER_THREAD = 12;

const WinogradKernels &winograd_kernels() { return KERNELS_OF_THIS_PROCESSOR(winograd); }

namespace {

// Null if there are none for this processor.
const Bf16Kernels *bf16_kernels() {
#ifdef __x86_64__
    return multiplies_bf16() ? winograd_bf16 : nullptr;
#else
    return nullptr;
#endif
}

const Bf16Kernels &required_bf16_kernels() {
    const auto *const kernels = bf16_kernels();
    TORCH_CHECK(kernels, "this processor has no kernels for convolutions in bf16");
    return *kernels;
}

} // namespace

bool planes_in_bf16_are_fastest() { return bf16_kernels() && !multiplies_bf16_in_tiles(); }

at::Tensor planes_of(const Convolution &c, const at::Tensor &weights, bool backward, at::ScalarType kind) {
    auto u = at::empty({PLANES, c.in, c.out}, weights.options().dtype(kind));
    const auto from = weights_of(c, weights, backward);
    const auto transform = [&](const auto &kernels, auto *to) {
        // By blocks: threads must not share the pair of channels that bf16 kernels store together.
        at::parallel_for(0, c.in / CHANNELS, 1, [&](int64_t begin, int64_t end) {
            kernels.transform_weights(c, from, to, begin * CHANNELS, end * CHANNELS, work_of(9 * c.out).get());
        });
    };
    if (kind == at::kBFloat16) {
        transform(required_bf16_kernels(), static_cast<uint16_t *>(u.mutable_data_ptr()));
    } else {
        transform(winograd_kernels(), u.mutable_data_ptr<float>());
    }
    return u;
}

at::Tensor convolve(const Convolution &c, const at::Tensor &x, const at::Tensor &planes, const at::Tensor &bias,
                    const at::Tensor &plus) {
    auto y = at::empty({c.batch, c.out, c.height, c.width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
    const auto *const biases = values_of<float>(bias);
    const auto for_tiles = [&](const auto &body) { at::parallel_for(0, tiles_of(c), TILES_PER_THREAD, body); };
    const auto with_planes_in_f32 = [&]<typename T>(const ImageKernels<T> &kernels) {
        const auto *const from = values_of<T>(x), *const added = values_of<T>(plus);
        const auto *const u = values_of<float>(planes);
        auto *const to = static_cast<T *>(y.mutable_data_ptr());
        for_tiles([&](int64_t begin, int64_t end) {
            kernels.forward(c, from, u, biases, added, to, begin, end, work_of(forward_work(c)).get());
        });
    };
    if (planes.scalar_type() == at::kBFloat16) {
        const auto &kernels = required_bf16_kernels();
        const auto *const from = values_of<uint16_t>(x), *const u = values_of<uint16_t>(planes);
        const auto *const added = values_of<uint16_t>(plus);
        auto *const to = static_cast<uint16_t *>(y.mutable_data_ptr());
        for_tiles([&](int64_t begin, int64_t end) {
            const auto sums = work_of(bf16_sums_work(c));
            const auto inputs = std::make_unique_for_overwrite<uint16_t[]>(bf16_inputs_work(c));
            kernels.forward(c, from, u, biases, added, to, begin, end, sums.get(), inputs.get());
        });
    } else if (x.scalar_type() == at::kBFloat16) {
        with_planes_in_f32(winograd_kernels().bf16);
    } else {
        with_planes_in_f32(winograd_kernels().f32);
    }
    return y;
}

} // namespace tch_ext

extern "C" {

// The transformed weights of the f32 `weights` [out, in, 3, 3], in f32 or bf16: [36, in, out], in an order of this
// processor's. The caller must release `*planes`.
char *tch_ext_winograd_planes(const at::Tensor *weights, bool bf16, at::Tensor **planes) {
    return tch_ext::guarded([&] {
        const auto size = weights->sizes();
        TORCH_CHECK(size.size() == 4 && size[2] == 3 && size[3] == 3 && size[0] % tch_ext::CHANNELS == 0 &&
                        size[1] % tch_ext::CHANNELS == 0 && weights->is_cpu() && weights->scalar_type() == at::kFloat,
                    "f32 weights [out, in, 3, 3] on the CPU of channels in multiples of ", tch_ext::CHANNELS,
                    " are required, not ", size);
        const at::NoGradGuard no_grad;
        const tch_ext::Convolution c{0, 0, 0, size[1], size[0]};
        const auto values = weights->contiguous();
        *planes = new at::Tensor(tch_ext::planes_of(c, values, false, bf16 ? at::kBFloat16 : at::kFloat));
    });
}

// The convolution of x [B, in, H, W] with these planes at stride 1 and padding 1, plus the f32 `bias` [out] and `plus`
// [B, out, H, W] of the type of x, which may be null; without gradients, in the type of x. The caller must release `*y`.
char *tch_ext_winograd_with_planes(const at::Tensor *x, const at::Tensor *planes, const at::Tensor *bias,
                                   const at::Tensor *plus, at::Tensor **y) {
    return tch_ext::guarded([&] {
        const at::NoGradGuard no_grad;
        const auto kind = x->scalar_type(), type = planes->scalar_type();
        const bool halved = type == at::kBFloat16;
        TORCH_CHECK(planes->is_cpu() && planes->is_contiguous() && planes->dim() == 3 && (halved || type == at::kFloat),
                    "transformed weights are required, not ", planes->sizes());
        const int64_t in = planes->size(1), out = planes->size(2);
        TORCH_CHECK(x->is_cpu() && x->dim() == 4 && x->size(1) == in && bias->is_cpu() && bias->dim() == 1 &&
                        bias->size(0) == out && bias->scalar_type() == at::kFloat,
                    "images ", x->sizes(), " and a bias ", bias->sizes(), " do not fit ", in, " to ", out, " channels");
        TORCH_CHECK(halved ? kind == at::kBFloat16 : kind == at::kFloat || kind == at::kBFloat16,
                    "images in f32 or bf16 are required, in bf16 for weights in bf16");
        const auto c = tch_ext::shape_of(*x, out);
        TORCH_CHECK(!plus || (plus->is_cpu() && plus->scalar_type() == kind &&
                              plus->sizes() == c10::IntArrayRef({c.batch, c.out, c.height, c.width})),
                    "what is added must have the shape and type of the result");
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        const std::array<const c10::IValue, 2> inputs{*x, *planes};
        if (guard.isActive()) guard.before("tch_ext::winograd_with_planes", c10::ArrayRef<const c10::IValue>(inputs));
        const auto prepared = [](const at::Tensor &images) { return images.contiguous(at::MemoryFormat::ChannelsLast); };
        const auto images = prepared(*x), added = plus ? prepared(*plus) : at::Tensor(), biases = bias->contiguous();
        const auto result = tch_ext::convolve(c, images, *planes, biases, added);
        if (guard.isActive()) guard.setOutputs(std::vector<c10::IValue>{result});
        *y = new at::Tensor(result);
    });
}
}
