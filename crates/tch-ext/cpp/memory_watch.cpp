// The memory of tensors on the CPU, as libtorch's allocator reports it to the computing thread.
#include "guarded.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>

namespace {

struct Watch final : c10::MemoryReportingInfoBase {
    int64_t live = 0, peak = 0;

    void reportMemoryUsage(void *, int64_t change, size_t, size_t, c10::Device device) override {
        if (!device.is_cpu()) return;
        live += change;
        if (live > peak) peak = live;
    }
    bool memoryProfilingEnabled() const override { return true; }
};

} // namespace

extern "C" {

// Starts counting this thread's allocations, until tch_ext_end_watch on the same thread; watches nest.
char *tch_ext_begin_watch(Watch **watch) {
    return tch_ext::guarded([&] {
        const auto begun = std::make_shared<Watch>();
        c10::ThreadLocalDebugInfo::_push(c10::DebugInfoKind::PROFILER_STATE, begun);
        *watch = begun.get();
    });
}

char *tch_ext_end_watch() {
    return tch_ext::guarded([] { c10::ThreadLocalDebugInfo::_pop(c10::DebugInfoKind::PROFILER_STATE); });
}

int64_t tch_ext_watch_live(const Watch *watch) { return watch->live; }

// The maximum since the last call.
int64_t tch_ext_watch_take_peak(Watch *watch) {
    const int64_t peak = watch->peak;
    watch->peak = watch->live;
    return peak;
}
}
