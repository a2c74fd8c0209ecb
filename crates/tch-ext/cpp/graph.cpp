// CUDA graphs: work that is recorded once and enqueued as a whole from then on. See graph.rs.
//
// libtorch has an interface for them that needs no CUDA headers (at::accelerator::Graph), but its CUDA backend, up to
// 2.13, does not implement it. What the backend exports are the functions of its own class, which are looked up here by
// their names: none of them is virtual.
#include "guarded.h"
#include "stream.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <dlfcn.h>
#include <iterator>
#include <utility>

namespace {

// at::cuda::CUDAGraph's constructor, capture_begin, capture_end, replay and destructor.
constexpr const char *SYMBOLS[] = {
    "_ZN2at4cuda9CUDAGraphC1Eb",
    "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode",
    "_ZN2at4cuda9CUDAGraph11capture_endEv",
    "_ZN2at4cuda9CUDAGraph6replayEv",
    "_ZN2at4cuda9CUDAGraphD1Ev",
};

using Pool = std::pair<unsigned long long, unsigned long long>;

// What they are in C: the object comes first. An enumeration is passed as an int.
struct Api {
    void (*construct)(void *graph, bool keep);
    void (*begin)(void *graph, Pool pool, int mode);
    void (*end)(void *graph);
    void (*replay)(void *graph);
    void (*destroy)(void *graph);
};

template <typename Pointer> void find(const char *name, Pointer &pointer) {
    pointer = reinterpret_cast<Pointer>(dlsym(RTLD_DEFAULT, name));
    TORCH_CHECK(pointer, "this libtorch has no function ", name);
}

const Api &api() {
    static const Api found = [] {
        Api api{};
        find(SYMBOLS[0], api.construct);
        find(SYMBOLS[1], api.begin);
        find(SYMBOLS[2], api.end);
        find(SYMBOLS[3], api.replay);
        find(SYMBOLS[4], api.destroy);
        return api;
    }();
    return found;
}

// cudaStreamCaptureModeThreadLocal: what the loader's threads do meanwhile, such as pinning memory, does not matter.
constexpr int THREAD_LOCAL = 1;

struct Graph {
    Graph() { api().construct(object, /*keep=*/false); }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;
    ~Graph() { api().destroy(object); }

    void begin() { api().begin(object, Pool{0, 0}, THREAD_LOCAL); } // a pool of its own
    void end() { api().end(object); }
    void replay() { api().replay(object); }

private:
    // The object has 104 bytes in 2.11 and about 340 in 2.13, pointers and containers; its header needs those of CUDA.
    alignas(std::max_align_t) std::byte object[4096];
};

} // namespace

extern "C" {

// The name of the i-th function that is needed, or null.
const char *tch_ext_graph_symbol(size_t i) { return i < std::size(SYMBOLS) ? SYMBOLS[i] : nullptr; }

// Everything that this thread enqueues from now on, and what autograd enqueues for it, is recorded instead of done.
char *tch_ext_begin_graph(int index, Graph **graph) {
    return tch_ext::guarded([&] {
        // Memory that is cached for the same work done eagerly would lie idle beside the graph's own.
        tch_ext::gpus().synchronizeDevice(static_cast<c10::DeviceIndex>(index));
        at::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
        // A graph that cannot be begun or ended is never destroyed: libtorch's allocator goes on asking it which memory is
        // its.
        auto *made = new Graph;
        made->begin();
        *graph = made;
    });
}

// The caller must not use the graph any more if this fails, nor free it.
char *tch_ext_end_graph(Graph *graph) {
    return tch_ext::guarded([&] { graph->end(); });
}

char *tch_ext_replay_graph(Graph *graph) {
    return tch_ext::guarded([&] { graph->replay(); });
}

void tch_ext_free_graph(Graph *graph) { delete graph; }
}
