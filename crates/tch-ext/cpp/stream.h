// The streams on which this process uses a GPU. Nothing here is compiled against CUDA: libtorch's backend provides them.
#pragma once
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace tch_ext {

inline c10::Device gpu(int index) { return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)}; }

inline const c10::impl::DeviceGuardImplInterface &gpus() { return *c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA); }

// Where everything computes. It is not the default one, on which CUDA records no graphs.
c10::Stream compute_stream(c10::Device device);

// For copies to the host beside the computation.
c10::Stream copy_stream(c10::Device device);

} // namespace tch_ext
