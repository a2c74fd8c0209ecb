// Nodes of autograd's graph: libtorch 2.11 wants them in a std::shared_ptr, later ones are counted by themselves.
#pragma once
#include <torch/csrc/autograd/function.h>
#include <torch/version.h>

#include <memory>
#include <utility>

namespace tch_ext {

template <typename T, typename... Args> auto make_node(Args &&...args) {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13 // as in scripts/gpu/bundle.sh's build for 2.11
    return std::make_shared<T>(std::forward<Args>(args)...);
#else
    return c10::make_intrusive<T>(std::forward<Args>(args)...);
#endif
}

} // namespace tch_ext
