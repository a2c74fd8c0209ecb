// The GPU and the stream of each thread that computes. See make_current in gpus.rs.
#include "stream.h"
#include "guarded.h"

#include <map>
#include <mutex>

namespace tch_ext {
namespace {

struct Streams {
    c10::Stream compute, copies;
};

// Taken from libtorch's pool once: it hands out the same 32 in turn, so one that is taken later may be the compute stream.
Streams streams(c10::Device device) {
    static std::mutex mutex;
    static std::map<c10::DeviceIndex, Streams> taken;
    const std::lock_guard lock(mutex);
    auto found = taken.find(device.index());
    if (found == taken.end()) {
        const auto compute = gpus().getStreamFromGlobalPool(device), copies = gpus().getStreamFromGlobalPool(device);
        found = taken.emplace(device.index(), Streams{compute, copies}).first;
    }
    return found->second;
}

} // namespace

c10::Stream compute_stream(c10::Device device) { return streams(device).compute; }

c10::Stream copy_stream(c10::Device device) { return streams(device).copies; }

} // namespace tch_ext

extern "C" {

char *tch_ext_make_current(int index) {
    return tch_ext::guarded([&] {
        const auto device = tch_ext::gpu(index);
        tch_ext::gpus().setDevice(device);
        tch_ext::gpus().exchangeStream(tch_ext::compute_stream(device));
    });
}

// The `cudaStream_t` on which the GPU computes.
char *tch_ext_compute_stream(int index, void **handle) {
    return tch_ext::guarded(
        [&] { *handle = tch_ext::gpus().getStreamNativeHandle(tch_ext::compute_stream(tch_ext::gpu(index))); });
}
}
