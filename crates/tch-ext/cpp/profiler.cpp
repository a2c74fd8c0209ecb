// libtorch's own profiler (Kineto), and our ranges in its recordings. Results as in shim.cpp.
#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <cstdlib>
#include <memory>
#include <set>
#include <string>

using tch_ext::guarded;

namespace {

namespace autograd = torch::autograd::profiler;
namespace profiler = torch::profiler::impl;

using Each = void (*)(void *context, const char *name, bool range, bool on_gpu, int64_t start_ns, int64_t ns);

// Kineto logs every start and stop, and the absence of a GPU, to stderr like errors. Set before main, while no other
// thread can read the environment; users can set it to 0 to see everything.
const bool quiet = setenv("KINETO_LOG_LEVEL", "6", /*overwrite=*/0) == 0;

} // namespace

extern "C" {

// Starts recording the operations of all threads, with the shapes of their inputs; only one recording at a time.
char *tch_ext_profiler_start() {
    return guarded([] {
        profiler::ExperimentalConfig more;
        more.profile_all_threads = true;
        profiler::ProfilerConfig config(profiler::ProfilerState::KINETO, /*report_input_shapes=*/true,
                                        /*profile_memory=*/false, /*with_stack=*/false, /*with_flops=*/false,
                                        /*with_modules=*/false, more);
        std::set<profiler::ActivityType> activities{profiler::ActivityType::CPU};
        if (at::hasCUDA()) {
            activities.insert(profiler::ActivityType::CUDA);
        }
        autograd::prepareProfiler(config, activities);
        autograd::enableProfiler(config, activities);
    });
}

// Ends the recording. With a `path`, writes it there as a Chrome trace, and calls `each` for every operator and range
// of the calling thread and of the threads that ran its backward passes, and for all GPU activities, in any order;
// without a path, discards it.
char *tch_ext_profiler_stop(const char *path, void *context, Each each) {
    return guarded([&] {
        auto recorded = autograd::disableProfiler();
        if (!path) {
            return;
        }
        recorded->save(path);
        const auto scope_is = [](const autograd::KinetoEvent &event, at::RecordScope scope) {
            return event.scope() == static_cast<uint8_t>(scope);
        };
        // libtorch runs backward on the calling thread for the CPU, and on one thread per GPU, for which the calling
        // one waits.
        std::set<uint64_t> threads{at::RecordFunction::currentThreadId()};
        for (const auto &event : recorded->events()) {
            if (scope_is(event, at::RecordScope::BACKWARD_FUNCTION)) threads.insert(event.startThreadId());
        }
        for (const auto &event : recorded->events()) {
            const bool on_gpu = event.deviceType() == c10::DeviceType::CUDA;
            // Ranges appear a second time in the row of the GPU, around its work for them.
            const bool shadow = event.activityType() == static_cast<uint8_t>(libkineto::ActivityType::GPU_USER_ANNOTATION);
            if (on_gpu ? !shadow : threads.contains(event.startThreadId())) {
                each(context, event.name().c_str(), scope_is(event, at::RecordScope::USER_SCOPE), on_gpu,
                     static_cast<int64_t>(event.startNs()), static_cast<int64_t>(event.durationNs()));
            }
        }
    });
}

// Begins a range on this thread; null if there is no recording.
at::RecordFunction *tch_ext_range_begin(const char *name) {
    try {
        auto callbacks = at::getStepCallbacksUnlessEmpty(at::RecordScope::USER_SCOPE);
        if (!callbacks) {
            return nullptr;
        }
        auto range = std::make_unique<at::RecordFunction>(std::move(*callbacks));
        range->before(name);
        return range.release();
    } catch (...) {
        return nullptr;
    }
}

void tch_ext_range_end(at::RecordFunction *range) { delete range; }
}
