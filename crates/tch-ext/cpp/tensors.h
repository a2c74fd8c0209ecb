// The lists of tensors that Rust passes.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <vector>

namespace tch_ext {

// References to `count` tensors of the caller's.
inline std::vector<at::Tensor> tensors(const at::Tensor *const *pointers, size_t count) {
    std::vector<at::Tensor> list;
    list.reserve(count);
    for (size_t i = 0; i < count; ++i) list.push_back(*pointers[i]);
    return list;
}

} // namespace tch_ext
