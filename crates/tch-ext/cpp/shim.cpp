// Functions of libtorch that tch does not expose. Every function returns null on success, otherwise an error message
// that the caller frees with tch_ext_free. Tensors are borrowed pointers to at::Tensor, as in torch-sys.
#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>

#include <cstdlib>
#include <memory>

using tch_ext::guarded;

namespace {

// Without it cuBLAS is not deterministic, and libtorch refuses to call it in deterministic mode. Set before main, while
// no other thread can read the environment; a user's value is kept.
const bool repeatable_cublas = setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0) == 0;

// Owns `context` and calls back with it after each accumulation into the tensor that holds the hook.
struct GradHook final : torch::autograd::PostAccumulateGradHook {
    void *context;
    bool (*call)(void *);
    void (*release)(void *);

    GradHook(void *context, bool (*call)(void *), void (*release)(void *))
        : context(context), call(call), release(release) {}
    GradHook(const GradHook &) = delete;
    GradHook &operator=(const GradHook &) = delete;
    ~GradHook() override { release(context); }

    void operator()(const at::Tensor &) override { TORCH_CHECK(call(context), "a gradient hook panicked"); }
};

} // namespace

extern "C" {

void tch_ext_free(char *message) { free(message); }

// Makes `grad` the gradient of the leaf `param`: backward then accumulates into its memory instead of allocating.
char *tch_ext_set_grad(at::Tensor *param, const at::Tensor *grad) {
    return guarded([&] {
        TORCH_CHECK(param->sizes() == grad->sizes() && param->scalar_type() == grad->scalar_type() &&
                        param->device() == grad->device(),
                    "a gradient must have its parameter's shape, dtype and device");
        param->mutable_grad() = *grad;
    });
}

// A channels-last copy of `images` [B, C, H, W]; the caller must release `*copy`.
char *tch_ext_channels_last(const at::Tensor *images, at::Tensor **copy) {
    return guarded([&] { *copy = new at::Tensor(images->contiguous(at::MemoryFormat::ChannelsLast)); });
}

// A new tensor of zeros in pinned host memory, of the shape and dtype of `like`; the caller must release `*pinned`.
char *tch_ext_pinned(const at::Tensor *like, at::Tensor **pinned) {
    return guarded([&] { *pinned = new at::Tensor(at::zeros_like(*like, like->options().pinned_memory(true))); });
}

// Calls `call(context)` whenever backward has accumulated into the gradient of the leaf `param`. Takes ownership of
// `context` in any case, and passes it to `release` when the hook is replaced, cleared, or refused.
char *tch_ext_set_grad_hook(at::Tensor *param, void *context, bool (*call)(void *), void (*release)(void *)) {
    return guarded([&] {
        auto hook = std::make_unique<GradHook>(context, call, release);
        TORCH_CHECK(param->requires_grad() && param->is_leaf(), "only a leaf that requires a gradient takes a hook");
        torch::autograd::impl::set_post_acc_grad_hooks(*param, std::move(hook));
    });
}

char *tch_ext_clear_grad_hook(at::Tensor *param) {
    return guarded([&] { torch::autograd::impl::set_post_acc_grad_hooks(*param, nullptr); });
}

// See set_deterministic in gpus.rs.
char *tch_ext_set_deterministic(bool on) {
    return guarded([&] {
        auto &context = at::globalContext();
        context.setDeterministicAlgorithms(on, /*warn_only=*/false);
        // All memory is written before it is read; filling it first would be one more pass over every tensor.
        context.setDeterministicFillUninitializedMemory(false);
        context.setDeterministicCuDNN(on);
        // Benchmarks all algorithms for each shape and uses the fastest, which is not always the same one.
        context.setBenchmarkCuDNN(!on);
        // Its backward accumulates in arbitrary order. Flash and memory-efficient attention respect the first setting.
        context.setSDPUseCuDNN(!on);
    });
}

// Makes a GPU the calling thread's current one. Nothing here is compiled against CUDA: libtorch's backend registers the
// function when it is loaded.
char *tch_ext_make_current(int index) {
    return guarded([&] {
        const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
        c10::impl::getDeviceGuardImpl(device.type())->setDevice(device);
    });
}

// Bytes of a GPU's memory: in tensors at most since the process started, and reserved by libtorch for them at most.
char *tch_ext_gpu_memory(int index, int64_t *allocated, int64_t *reserved) {
    return guarded([&] {
        const auto stats = at::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        const auto total = static_cast<size_t>(at::CachingAllocator::StatType::AGGREGATE);
        *allocated = stats.allocated_bytes[total].peak;
        *reserved = stats.reserved_bytes[total].peak;
    });
}

char *tch_ext_fused_adamw(at::Tensor *param, at::Tensor *grad, at::Tensor *exp_avg, at::Tensor *exp_avg_sq,
                          at::Tensor *step, double lr, double beta1, double beta2, double weight_decay, double eps) {
    return guarded([&] {
        at::NoGradGuard no_grad;
        at::_fused_adamw_({*param}, {*grad}, {*exp_avg}, {*exp_avg_sq}, {}, {*step}, lr, beta1, beta2, weight_decay,
                          eps, /*amsgrad=*/false, /*maximize=*/false);
    });
}
}
