// What tch does not expose of libtorch. Every function returns null on success, else a message that the caller frees
// with tch_ext_free. Tensors are borrowed pointers to at::Tensor, as torch-sys passes them.
#include "guarded.h"

#include <ATen/ops/_fused_adamw.h>
#include <torch/types.h>

#include <cstdlib>

using tch_ext::guarded;

extern "C" {

void tch_ext_free(char *message) { free(message); }

// Makes `grad` the gradient of the leaf `param`: backward then adds into its memory instead of allocating.
char *tch_ext_set_grad(at::Tensor *param, const at::Tensor *grad) {
    return guarded([&] {
        TORCH_CHECK(param->sizes() == grad->sizes() && param->scalar_type() == grad->scalar_type() &&
                        param->device() == grad->device(),
                    "a gradient must have its parameter's shape, dtype and device");
        param->mutable_grad() = *grad;
    });
}

// A copy of `images` [B, C, H, W] whose channels are adjacent in memory; `*copy` is the caller's to release.
char *tch_ext_channels_last(const at::Tensor *images, at::Tensor **copy) {
    return guarded([&] { *copy = new at::Tensor(images->contiguous(at::MemoryFormat::ChannelsLast)); });
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
