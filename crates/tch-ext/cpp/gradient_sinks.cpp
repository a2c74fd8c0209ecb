// Where backward adds the gradients of parameters: to memory of the caller's, those of a group together. See
// gradient_sinks.rs.
#include "callback.h"
#include "guarded.h"
#include "node.h"
#include "tensors.h"

#include <ATen/ops/_foreach_add.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

namespace {

using torch::Tensor;

using Ready = tch_ext::Callback<size_t>; // takes a parameter's index
using Arrived = std::map<size_t, Tensor>; // by the parameter's index

struct Sinks {
    explicit Sinks(std::vector<Tensor> sums) : sums(std::move(sums)) { ungroup(); }

    void ungroup() {
        std::vector<size_t> own(sums.size());
        std::iota(own.begin(), own.end(), size_t{0});
        group(std::move(own), nullptr);
    }

    void group(std::vector<size_t> groups, std::shared_ptr<Ready> callback) {
        const std::lock_guard lock(mutex);
        add_waiting();
        group_of = std::move(groups);
        ready = std::move(callback);
        missing.clear();
        for (const auto index : group_of) {
            if (index >= missing.size()) missing.resize(index + 1);
            missing[index] += 1;
        }
        waiting = std::vector<Arrived>(missing.size());
    }

    void flush() {
        const std::lock_guard lock(mutex);
        add_waiting();
    }

    void arrive(size_t index, Tensor &&gradient) {
        Arrived complete;
        std::shared_ptr<Ready> callback;
        {
            const std::lock_guard lock(mutex);
            auto &arrived = waiting[group_of[index]];
            if (arrived.contains(index)) add(std::exchange(arrived, {})); // of an earlier pass, which lacked some
            arrived.emplace(index, std::move(gradient));
            if (arrived.size() < missing[group_of[index]]) return;
            complete = std::exchange(arrived, {});
            add(complete);
            callback = ready;
        }
        if (!callback) return;
        for (const auto &[done, gradient] : complete)
            TORCH_CHECK((*callback)(done), "a gradient hook panicked");
    }

    std::vector<Tensor> sums;

private:
    void add_waiting() {
        for (auto &arrived : waiting) add(std::exchange(arrived, {}));
    }

    // On a GPU, one launch for as many as possible: they must be laid out alike.
    void add(const Arrived &arrived) {
        at::NoGradGuard no_grad;
        std::vector<Tensor> into, from;
        for (const auto &[index, gradient] : arrived) {
            auto &sum = sums[index];
            if (gradient.scalar_type() == sum.scalar_type() && gradient.strides() == sum.strides()) {
                into.push_back(sum);
                from.push_back(gradient);
            } else {
                sum.add_(gradient);
            }
        }
        if (into.size() == 1) {
            into[0].add_(from[0]);
        } else if (!into.empty()) {
            at::_foreach_add_(into, from);
        }
    }

    std::mutex mutex;
    std::vector<size_t> group_of, missing; // of each parameter; parameters of each group
    std::vector<Arrived> waiting;          // by group
    std::shared_ptr<Ready> ready;
};

// Backward's last node for a parameter. Like libtorch's own, it runs as soon as its gradient is complete.
struct Sink final : torch::autograd::Node {
    std::shared_ptr<Sinks> sinks;
    size_t index;

    Sink(std::shared_ptr<Sinks> sinks, size_t index) : Node(/*sequence_nr=*/UINT64_MAX), sinks(std::move(sinks)), index(index) {}

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        if (gradients[0].defined()) sinks->arrive(index, std::move(gradients[0]));
        return {};
    }
};

} // namespace

using Handle = std::shared_ptr<Sinks>;

extern "C" {

// The caller must release `*sinks` by tch_ext_free_sinks.
char *tch_ext_sinks(const at::Tensor *const *sums, size_t count, Handle **sinks) {
    return tch_ext::guarded([&] {
        *sinks = new Handle(std::make_shared<Sinks>(tch_ext::tensors(sums, count)));
    });
}

void tch_ext_free_sinks(Handle *sinks) { delete sinks; }

char *tch_ext_train_into(const Handle *sinks, size_t index, const at::Tensor *values, at::Tensor **trained) {
    return tch_ext::guarded([&] {
        const auto &sum = (*sinks)->sums.at(index);
        TORCH_CHECK(values->sizes() == sum.sizes() && values->device() == sum.device(),
                    "a parameter must have its gradient's shape and device");
        auto alias = std::make_unique<at::Tensor>(values->detach());
        torch::autograd::create_gradient_edge(*alias, tch_ext::make_node<Sink>(*sinks, index));
        *trained = alias.release();
    });
}

// Takes ownership of `context` in any case, and passes it to `release` when it is no longer needed.
char *tch_ext_group_sinks(const Handle *sinks, const size_t *group_of, void *context, Ready::Function call,
                          Ready::Release release) {
    return tch_ext::guarded([&] {
        auto ready = std::make_shared<Ready>(context, call, release);
        (*sinks)->group({group_of, group_of + (*sinks)->sums.size()}, std::move(ready));
    });
}

char *tch_ext_ungroup_sinks(const Handle *sinks) {
    return tch_ext::guarded([&] { (*sinks)->ungroup(); });
}

char *tch_ext_flush_sinks(const Handle *sinks) {
    return tch_ext::guarded([&] { (*sinks)->flush(); });
}
}
