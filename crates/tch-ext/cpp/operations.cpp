// Counts the operations that libtorch's dispatcher runs on this thread, and the memory that they read and write.
#include "guarded.h"

#include <ATen/record_function.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

// An operation that has begun but not ended.
struct Open {
    bool counted = false;    // an operation inside it, at least
    bool over_lists = false; // it or an operation around it: a GPU runs one kernel for many tensors
    int64_t bytes = 0;
    std::vector<const void *> memory; // of its inputs
};

struct Counts {
    int64_t bytes = 0;
    std::map<std::string, int64_t, std::less<>> launches; // by the operation's name
    std::vector<Open> open;
};

thread_local Counts counts;

// These launch kernels of their own, whatever other operations they call first.
constexpr std::array<std::string_view, 4> ALWAYS{"aten::mkldnn_convolution", "aten::convolution_backward",
                                                 "aten::native_group_norm", "aten::native_group_norm_backward"};
// These change what a tensor refers to, not its memory.
constexpr std::array<std::string_view, 8> NEVER{"aten::as_strided_", "aten::resize_",   "aten::set_",          "aten::detach_",
                                                "aten::squeeze_",    "aten::unsqueeze_", "aten::requires_grad_", "aten::transpose_"};

template <typename Values, typename Body> void each_tensor(const Values &values, Body body) {
    for (const c10::IValue &value : values) {
        if (value.isTensor() && value.toTensor().defined()) body(value.toTensor());
        if (!value.isTensorList()) continue;
        for (const at::Tensor &tensor : value.toTensorVector())
            if (tensor.defined()) body(tensor);
    }
}

const void *memory_of(const at::Tensor &tensor) {
    return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &operation) {
    const bool inside = !counts.open.empty() && counts.open.back().over_lists;
    Open open;
    open.over_lists = inside || std::string_view(operation.name()).starts_with("aten::_foreach_");
    each_tensor(operation.inputs(), [&](const at::Tensor &tensor) {
        open.bytes += static_cast<int64_t>(tensor.nbytes());
        open.memory.push_back(memory_of(tensor));
    });
    counts.open.push_back(std::move(open));
    return nullptr;
}

void end(const at::RecordFunction &operation, at::ObserverContext *) {
    if (counts.open.empty()) return;
    Open open = std::move(counts.open.back());
    counts.open.pop_back();
    const std::string_view name = operation.name();
    const auto among = [&](const auto &names) { return std::find(names.begin(), names.end(), name) != names.end(); };
    const bool inside_lists = !counts.open.empty() && counts.open.back().over_lists;
    const bool copies = name == "aten::copy_" || name == "aten::_to_copy" || name == "aten::to";
    if (among(ALWAYS) || open.over_lists || (!open.counted && !among(NEVER) && !name.starts_with("aten::empty"))) {
        bool computes = open.over_lists;
        each_tensor(operation.outputs(), [&](const at::Tensor &tensor) {
            open.bytes += static_cast<int64_t>(tensor.nbytes());
            // The CPU makes tensors of numbers; a GPU's kernels take them as arguments.
            if (copies && tensor.dim() == 0) return;
            // A view shares the memory of an input.
            const auto &inputs = open.memory;
            computes |= name.ends_with('_') || std::find(inputs.begin(), inputs.end(), memory_of(tensor)) == inputs.end();
        });
        if (computes && !inside_lists) {
            open.counted = true;
            counts.launches[std::string(name)] += 1;
            counts.bytes += open.bytes;
        }
    }
    if (open.counted && !counts.open.empty()) counts.open.back().counted = true;
}

} // namespace

extern "C" {

// Starts counting on this thread, from 0; the caller must pass `*handle` to tch_ext_end_operations there.
char *tch_ext_begin_operations(uint64_t *handle) {
    return tch_ext::guarded([&] {
        counts = {};
        auto callback = at::RecordFunctionCallback(begin, end).needsInputs(true).needsOutputs(true);
        *handle = at::addThreadLocalCallback(callback.scopes({at::RecordScope::FUNCTION}));
    });
}

// Stops counting. The caller must free `*launches`, lines of a number and a name.
char *tch_ext_end_operations(uint64_t handle, char **launches, int64_t *bytes) {
    return tch_ext::guarded([&] {
        at::removeCallback(handle);
        std::string lines;
        for (const auto &[name, count] : counts.launches) lines += std::to_string(count) + ' ' + name + '\n';
        *launches = tch_ext::duplicate(lines.c_str());
        *bytes = counts.bytes;
    });
}
}
