// A GPU's tensors, copied within its memory, and read from there beside further computation. Nothing here is compiled
// against CUDA: libtorch's backend provides streams and events.
#include "guarded.h"
#include "stream.h"
#include "tensors.h"

#include <c10/core/Event.h>
#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

namespace {

using tch_ext::gpus;
using torch::Tensor;

// Elements that pass through pinned memory at a time: 16 MiB.
constexpr int64_t CHUNK = int64_t{1} << 22;

struct Snapshot {
    std::vector<Tensor> copies;
    c10::Event taken;

    c10::Device device() const { return copies.at(0).device(); }
};

// Selects a stream for this thread.
struct OnStream {
    c10::Stream before;

    explicit OnStream(c10::Stream stream) : before(gpus().exchangeStream(stream)) {}
    OnStream(const OnStream &) = delete;
    OnStream &operator=(const OnStream &) = delete;
    ~OnStream() { gpus().exchangeStream(before); }
};

// Null if the device has no memory for it. The copies are made in stream order: later work may change the originals.
std::unique_ptr<Snapshot> take(const std::vector<Tensor> &parts) {
    at::NoGradGuard no_grad;
    const auto device = parts.at(0).device();
    std::vector<Tensor> copies;
    try {
        for (const auto &part : parts) {
            TORCH_CHECK(part.device() == device && part.scalar_type() == at::kFloat, "a snapshot takes f32 tensors of one device");
            copies.push_back(part.clone(at::MemoryFormat::Contiguous));
        }
    } catch (const c10::OutOfMemoryError &) {
        return nullptr;
    }
    auto snapshot = std::make_unique<Snapshot>(Snapshot{std::move(copies), c10::Event(device.type())});
    snapshot->taken.record(gpus().getStream(device));
    return snapshot;
}

Tensor staging(const Tensor &like) {
    const auto empty = [&](bool pinned) { return at::empty({CHUNK}, like.options().device(at::kCPU).pinned_memory(pinned)); };
    try {
        return empty(true);
    } catch (const c10::Error &) {
        return empty(false); // too little memory that can be pinned: slower
    }
}

void read(const Snapshot &snapshot, float *const *to) {
    at::NoGradGuard no_grad;
    const auto stream = tch_ext::copy_stream(snapshot.device());
    snapshot.taken.block(stream);
    const OnStream selected(stream);
    const auto stage = staging(snapshot.copies[0]);
    for (size_t i = 0; i < snapshot.copies.size(); ++i) {
        const auto &copy = snapshot.copies[i];
        for (int64_t at = 0; at < copy.numel(); at += CHUNK) {
            const auto count = std::min(CHUNK, copy.numel() - at);
            stage.narrow(0, 0, count).copy_(copy.narrow(0, at, count), /*non_blocking=*/true);
            stream.synchronize();
            std::memcpy(to[i] + at, stage.const_data_ptr<float>(), count * sizeof(float));
        }
    }
}

} // namespace

extern "C" {

// There is at least one part, of one dimension; the caller must pass `*snapshot`, if not null, to tch_ext_free_snapshot.
char *tch_ext_take_snapshot(const at::Tensor *const *parts, size_t count, Snapshot **snapshot) {
    return tch_ext::guarded([&] {
        *snapshot = take(tch_ext::tensors(parts, count)).release();
    });
}

// Copies each part to its place in host memory, on any thread.
char *tch_ext_read_snapshot(const Snapshot *snapshot, float *const *to) {
    return tch_ext::guarded([&] {
        // A thread without a current GPU would use the first one, and allocate memory there for a context.
        gpus().setDevice(snapshot->device());
        read(*snapshot, to);
    });
}

char *tch_ext_free_snapshot(Snapshot *snapshot) {
    return tch_ext::guarded([&] {
        const std::unique_ptr<Snapshot> owned(snapshot);
        gpus().setDevice(owned->device());
    });
}
}
