// Counts the operations that libtorch's dispatcher runs on this thread, the memory that they read and write, and the
// floating-point operations of products.
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
    double flops_per_output = 0;      // floating-point operations for each number of the result
    std::vector<const void *> memory; // of its inputs
};

struct Counts {
    int64_t bytes = 0;
    double flops = 0;
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

// The floating-point operations, two for each multiply-add, for each number that a product computes; 0 for anything else.
// A convolution or an attention calls others; only the one that knows all sizes is counted.
double flops_per_output(std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
    const auto sizes = [&](size_t input) { return inputs[input].toTensor().sizes(); };
    const auto product = [](c10::IntArrayRef all) { return static_cast<double>(c10::multiply_integers(all)); };
    if (name == "aten::convolution" || name == "tch_ext::winograd") return 2 * product(sizes(1).slice(1));
    if (name == "tch_ext::winograd_with_planes") return 2.0 * 9.0 * static_cast<double>(sizes(0)[1]);
    if (name == "aten::mm" || name == "aten::bmm") return 2.0 * static_cast<double>(sizes(0).back());
    if (name == "aten::addmm" || name == "aten::baddbmm") return 2.0 * static_cast<double>(sizes(1).back());
    const bool attends = name.starts_with("aten::_scaled_dot_product_") && !name.ends_with("_math");
    // Scores, and their products with the values; the width of values is that of queries.
    return attends ? 4.0 * static_cast<double>(sizes(1)[2]) : 0;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &operation) {
    const bool inside = !counts.open.empty() && counts.open.back().over_lists;
    Open open;
    open.over_lists = inside || std::string_view(operation.name()).starts_with("aten::_foreach_");
    open.flops_per_output = flops_per_output(operation.name(), operation.inputs());
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
    if (open.flops_per_output > 0 && !operation.outputs().empty()) // none if it failed
        counts.flops += open.flops_per_output * static_cast<double>(operation.outputs()[0].toTensor().numel());
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
char *tch_ext_end_operations(uint64_t handle, char **launches, int64_t *bytes, double *flops) {
    return tch_ext::guarded([&] {
        at::removeCallback(handle);
        std::string lines;
        for (const auto &[name, count] : counts.launches) lines += std::to_string(count) + ' ' + name + '\n';
        *launches = tch_ext::duplicate(lines.c_str());
        *bytes = counts.bytes;
        *flops = counts.flops;
    });
}
}
