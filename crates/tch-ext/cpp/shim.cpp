// Functions of libtorch that tch does not expose. Every function returns null on success, otherwise an error message
// that the caller frees with tch_ext_free. Tensors are borrowed pointers to at::Tensor, as in torch-sys.
#include "guarded.h"
#include "stream.h"

#include <ATen/Context.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cstdlib>

using tch_ext::guarded;

namespace {

// Without it cuBLAS is not deterministic, and libtorch refuses to call it in deterministic mode. Set before main, while
// no other thread can read the environment; a user's value is kept.
const bool repeatable_cublas = setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0) == 0;

} // namespace

extern "C" {

void tch_ext_free(char *message) { free(message); }

// A channels-last copy of `images` [B, C, H, W]; the caller must release `*copy`.
char *tch_ext_channels_last(const at::Tensor *images, at::Tensor **copy) {
    return guarded([&] { *copy = new at::Tensor(images->contiguous(at::MemoryFormat::ChannelsLast)); });
}

// A new tensor of zeros in pinned host memory, of the shape and dtype of `like`, for copies to a GPU; the caller must
// release `*pinned`. The thread keeps its stream: memory that it pins belongs to no graph that is being recorded.
char *tch_ext_pinned(const at::Tensor *like, int index, at::Tensor **pinned) {
    return guarded([&] {
        tch_ext::gpus().setDevice(tch_ext::gpu(index));
        *pinned = new at::Tensor(at::zeros_like(*like, like->options().pinned_memory(true)));
    });
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

// Bytes of a GPU's memory: in tensors at most since the process started, and reserved by libtorch for them at most.
char *tch_ext_gpu_memory(int index, int64_t *allocated, int64_t *reserved) {
    return guarded([&] {
        const auto stats = at::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        const auto total = static_cast<size_t>(at::CachingAllocator::StatType::AGGREGATE);
        *allocated = stats.allocated_bytes[total].peak;
        *reserved = stats.reserved_bytes[total].peak;
    });
}

// Bytes of a GPU's memory in all, where libtorch can say so.
char *tch_ext_gpu_total_memory(int index, int64_t *total) {
    return guarded([&] {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
        TORCH_CHECK(false, "this libtorch does not report the memory of GPU ", index, " (", *total, " bytes known)");
#else
        auto *allocator = at::getDeviceAllocator(c10::DeviceType::CUDA);
        *total = static_cast<int64_t>(allocator->getMemoryInfo(static_cast<c10::DeviceIndex>(index)).second);
#endif
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
