// Copies of a GPU's tensors in pinned host memory, made beside further computation. Nothing here is compiled against CUDA:
// libtorch's backend provides streams and events.
#include "guarded.h"

#include <c10/core/Event.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/types.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace {

using torch::Tensor;

struct Snapshot {
    std::vector<Tensor> copies;
    c10::Event done;
};

// Selects a stream for this thread.
struct OnStream {
    const c10::impl::DeviceGuardImplInterface &device;
    c10::Stream before;

    OnStream(const c10::impl::DeviceGuardImplInterface &device, c10::Stream stream)
        : device(device), before(device.exchangeStream(stream)) {}
    OnStream(const OnStream &) = delete;
    OnStream &operator=(const OnStream &) = delete;
    ~OnStream() { device.exchangeStream(before); }
};

// Copies on the device in stream order, so that the originals may be changed by later work; none if there is no memory.
std::vector<Tensor> copies_on_device(const std::vector<Tensor> &parts) {
    std::vector<Tensor> copies;
    try {
        for (const auto &part : parts) copies.push_back(part.clone());
    } catch (const c10::OutOfMemoryError &) {
        copies.clear();
    }
    return copies;
}

std::unique_ptr<Snapshot> begun(const std::vector<Tensor> &parts) {
    at::NoGradGuard no_grad;
    const auto device = parts.at(0).device();
    const auto &gpus = *c10::impl::getDeviceGuardImpl(device.type());
    const auto compute = gpus.getStream(device);
    const auto on_device = copies_on_device(parts);
    // Without memory on the device, later work on the GPU waits until the host has its copies.
    const auto stream = on_device.empty() ? compute : gpus.getStreamFromGlobalPool(device);
    c10::Event copied(device.type());
    copied.record(compute);
    copied.block(stream);
    auto snapshot = std::make_unique<Snapshot>(Snapshot{{}, c10::Event(device.type())});
    const OnStream selected(gpus, stream);
    for (const auto &part : on_device.empty() ? parts : on_device) {
        auto copy = at::empty(part.sizes(), part.options().device(at::kCPU).pinned_memory(true));
        copy.copy_(part, /*non_blocking=*/true);
        // Its memory is not used for anything else before the copy is done.
        part.record_stream(stream);
        snapshot->copies.push_back(std::move(copy));
    }
    snapshot->done.record(stream);
    return snapshot;
}

} // namespace

extern "C" {

// There is at least one part, all on one GPU; the caller must pass `*snapshot` to tch_ext_end_snapshot.
char *tch_ext_begin_snapshot(const at::Tensor *const *parts, size_t count, Snapshot **snapshot) {
    return tch_ext::guarded([&] {
        std::vector<Tensor> list;
        for (size_t i = 0; i < count; ++i) list.push_back(*parts[i]);
        *snapshot = begun(list).release();
    });
}

// Waits until all copies are done, on any thread, and passes the tensors to the caller, unless `copies` is null.
char *tch_ext_end_snapshot(Snapshot *snapshot, at::Tensor **copies) {
    return tch_ext::guarded([&] {
        const std::unique_ptr<Snapshot> owned(snapshot);
        owned->done.synchronize();
        if (!copies) return;
        for (size_t i = 0; i < owned->copies.size(); ++i) copies[i] = new at::Tensor(std::move(owned->copies[i]));
    });
}
}
