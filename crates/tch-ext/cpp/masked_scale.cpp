// Zeroes some elements and scales the others, as dropout does: in one pass forward and one backward on a GPU, keeping
// only the mask.
#include "guarded.h"

#include <ATen/ops/native_dropout_backward.h>
#include <torch/autograd.h>
#include <torch/types.h>

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct MaskedScale : torch::autograd::Function<MaskedScale> {
    static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &mask, double scale) {
        ctx->save_for_backward({mask});
        ctx->saved_data["scale"] = scale;
        return at::native_dropout_backward(x, mask, scale);
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        const auto mask = ctx->get_saved_variables()[0];
        return {at::native_dropout_backward(upstream[0], mask, ctx->saved_data["scale"].toDouble()), Tensor(), Tensor()};
    }
};

} // namespace

extern "C" char *tch_ext_masked_scale(const at::Tensor *x, const at::Tensor *mask, double scale, at::Tensor **out) {
    return tch_ext::guarded([&] {
        TORCH_CHECK(mask->scalar_type() == at::kBool && mask->sizes() == x->sizes(),
                    "a mask has the shape of what it masks, and is of bool");
        *out = new at::Tensor(MaskedScale::apply(*x, *mask, scale));
    });
}
