// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): autograd stores only the inputs of a part of the
// network, and backward recomputes the part.
#include "callback.h"
#include "guarded.h"
#include "node.h"
#include "tensors.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The caller's function of `count` tensors. If it fails, `message`, a zeroed buffer of `size` bytes, says why.
using Computed =
    tch_ext::Callback<const Tensor *const *, size_t /* count */, Tensor ** /* output */, char * /* message */, size_t /* size */>;

struct Part final : torch::CustomClassHolder {
    Computed computed;

    Part(void *context, Computed::Function call, Computed::Release release) : computed(context, call, release) {}

    Tensor operator()(at::TensorList inputs) const {
        std::vector<const Tensor *> borrowed;
        for (const auto &input : inputs) borrowed.push_back(&input);
        Tensor *output = nullptr;
        char message[2048] = "";
        TORCH_CHECK(computed(borrowed.data(), borrowed.size(), &output, message, sizeof message), message);
        return *std::unique_ptr<Tensor>(output);
    }
};

// Collects the gradients of the inputs unchanged: a leaf would copy some of them to a different layout.
struct Sink final : torch::autograd::Node {
    variable_list received;

    variable_list apply(variable_list &&gradients) override {
        received = std::move(gradients);
        return {};
    }
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
    static Tensor forward(AutogradContext *ctx, at::TensorList inputs, const c10::intrusive_ptr<Part> &part) {
        ctx->save_for_backward(inputs.vec());
        ctx->saved_data["part"] = at::IValue::make_capsule(part);
        return (*part)(inputs);
    }

    static variable_list backward(AutogradContext *ctx, variable_list upstream) {
        TORCH_CHECK(!at::GradMode::is_enabled(), "second-order gradients of a checkpointed part are not supported");
        const auto part = c10::static_intrusive_pointer_cast<Part>(ctx->saved_data["part"].toCapsule());
        const auto sink = tch_ext::make_node<Sink>();
        variable_list inputs;
        for (const auto &saved : ctx->get_saved_variables()) {
            inputs.push_back(saved.detach());
            if (saved.requires_grad()) {
                torch::autograd::create_gradient_edge(inputs.back(), sink);
            } else {
                sink->add_input_metadata(torch::autograd::Node::undefined_input());
            }
        }
        const auto output = [&] {
            at::AutoGradMode with_graph(true);
            return (*part)(inputs);
        }();
        const size_t count = inputs.size();
        // Tensors that are saved for the part's backward can then be freed while it runs.
        inputs.clear();
        torch::autograd::backward({output}, {upstream[0]});
        auto gradients = std::move(sink->received);
        gradients.resize(count + 1); // none for the part itself
        return gradients;
    }
};

} // namespace

// Stores the result of `call(context)` for the inputs in `*output`, which the caller must release. Takes ownership of
// `context` in any case, and passes it to `release` when neither this call nor a backward needs it any longer.
extern "C" char *tch_ext_checkpoint(const at::Tensor *const *inputs, size_t count, void *context, Computed::Function call,
                                    Computed::Release release, at::Tensor **output) {
    return tch_ext::guarded([&] {
        const auto part = c10::make_intrusive<Part>(context, call, release);
        *output = new at::Tensor(Checkpoint::apply(at::TensorList(tch_ext::tensors(inputs, count)), part));
    });
}
