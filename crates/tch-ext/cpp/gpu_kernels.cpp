// Compiles CUDA C++ at run time, through the C interfaces of NVRTC and of the driver: nothing here is compiled against
// CUDA. The signatures below are those of their headers.
#include "gpu_kernels.h"
#include "guarded.h"
#include "stream.h"

#include <ATen/Parallel.h>

#include <array>
#include <dlfcn.h>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tch_ext {
namespace {

constexpr const char *SOURCE =
#include "group_norm_gpu.inc"
    ;

using Program = void *;
using Context = void *;
using Module = void *;
using Function = void *;

struct Api {
    int (*create)(Program *, const char *source, const char *name, int, const char *const *, const char *const *);
    int (*compile)(Program, int count, const char *const *options);
    int (*log_size)(Program, size_t *);
    int (*log)(Program, char *);
    int (*cubin_size)(Program, size_t *);
    int (*cubin)(Program, char *);
    int (*destroy)(Program *);
    int (*attribute)(int *value, int which, int device);
    int (*retain_context)(Context *, int device);
    int (*current_context)(Context *);
    int (*set_context)(Context);
    int (*load)(Module *, const void *image);
    int (*function)(Function *, Module, const char *name);
    int (*launch)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, void *stream,
                  void **arguments, void **);
};

void *open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    TORCH_CHECK(library, dlerror());
    return library;
}

template <typename Pointer> void find(void *library, const char *name, Pointer &pointer) {
    pointer = reinterpret_cast<Pointer>(dlsym(library, name));
    TORCH_CHECK(pointer, "there is no ", name, " in NVRTC or the driver");
}

// NVRTC opens its builtins by name, but does not look beside itself: opened here, they are found.
void open_builtins(const Api &api) {
    Dl_info found{};
    if (!dladdr(reinterpret_cast<const void *>(api.create), &found)) return;
    std::error_code ignored;
    for (const auto &file : std::filesystem::directory_iterator(std::filesystem::path(found.dli_fname).parent_path(), ignored))
        if (file.path().filename().string().starts_with("libnvrtc-builtins.so")) dlopen(file.path().c_str(), RTLD_NOW);
}

void find_compiler(void *library, Api &api) {
    find(library, "nvrtcCreateProgram", api.create);
    find(library, "nvrtcCompileProgram", api.compile);
    find(library, "nvrtcGetProgramLogSize", api.log_size);
    find(library, "nvrtcGetProgramLog", api.log);
    find(library, "nvrtcGetCUBINSize", api.cubin_size);
    find(library, "nvrtcGetCUBIN", api.cubin);
    find(library, "nvrtcDestroyProgram", api.destroy);
    open_builtins(api);
}

void find_driver(void *library, Api &api) {
    find(library, "cuDeviceGetAttribute", api.attribute);
    find(library, "cuDevicePrimaryCtxRetain", api.retain_context);
    find(library, "cuCtxGetCurrent", api.current_context);
    find(library, "cuCtxSetCurrent", api.set_context);
    find(library, "cuModuleLoadData", api.load);
    find(library, "cuModuleGetFunction", api.function);
    find(library, "cuLaunchKernel", api.launch);
}

// Machine code of all kernels for one element type and pack size.
std::vector<char> compiled(const Api &api, bool bf16, int pack, const std::string &architecture) {
    const std::string type = bf16 ? "-DTYPE=gpu_norm::Bf16" : "-DTYPE=float";
    const std::string size = "-DPACK=" + std::to_string(pack), gpu = "--gpu-architecture=" + architecture;
    const std::array<const char *, 4> options{type.c_str(), size.c_str(), gpu.c_str(), "--std=c++17"};
    Program program = nullptr;
    TORCH_CHECK(api.create(&program, SOURCE, "group_norm_gpu.h", 0, nullptr, nullptr) == 0, "nvrtcCreateProgram failed");
    const std::shared_ptr<void> owner(nullptr, [&](void *) { api.destroy(&program); });
    if (api.compile(program, options.size(), options.data()) != 0) {
        size_t length = 0;
        api.log_size(program, &length);
        std::string log(length, ' ');
        api.log(program, log.data());
        TORCH_CHECK(false, "NVRTC cannot compile the group norm for ", architecture, ": ", log);
    }
    size_t length = 0;
    TORCH_CHECK(api.cubin_size(program, &length) == 0 && length > 0, "NVRTC gave no code for ", architecture);
    std::vector<char> code(length);
    TORCH_CHECK(api.cubin(program, code.data()) == 0, "nvrtcGetCUBIN failed");
    return code;
}

constexpr std::array<int, 2> PACKS{1, 4};
constexpr std::array<std::array<const char *, 3>, 2> NAMES{{{"sums_forward", "finish_forward", "apply_forward"},
                                                            {"sums_backward", "finish_backward", "apply_backward"}}};

// In the words by which a full memory and a failed GPU are told apart.
void succeeded(int code, const char *call) {
    constexpr int OUT_OF_MEMORY = 2;
    TORCH_CHECK(code != OUT_OF_MEMORY, "CUDA error: out of memory in ", call);
    TORCH_CHECK(code == 0, "CUDA error: ", call, " failed with code ", code);
}

// The kernels of one GPU: the one that this process computes on.
struct Loaded {
    Api api;
    int device;
    Context context;
    // By element type, pack size, direction, stage.
    std::array<std::array<std::array<std::array<Function, 3>, 2>, 2>, 2> functions;
};

std::unique_ptr<Loaded> loaded;

// The driver's functions work in the thread's current context. The CUDA runtime makes its own current only when a thread
// first needs one.
void make_context_current(const Loaded &gpu) {
    Context now = nullptr;
    succeeded(gpu.api.current_context(&now), "cuCtxGetCurrent");
    if (now != gpu.context) succeeded(gpu.api.set_context(gpu.context), "cuCtxSetCurrent");
}

std::unique_ptr<Loaded> load(const char *path, int device) {
    void *library = open(path);
    auto made = std::make_unique<Loaded>();
    auto &api = made->api;
    find_compiler(library, api);
    find_driver(library, api);
    // The runtime's context, which libtorch uses too.
    succeeded(api.retain_context(&made->context, made->device = device), "cuDevicePrimaryCtxRetain");
    make_context_current(*made);
    int major = 0, minor = 0;
    // The attributes of the compute capability.
    succeeded(api.attribute(&major, 75, device), "cuDeviceGetAttribute");
    succeeded(api.attribute(&minor, 76, device), "cuDeviceGetAttribute");
    const auto architecture = "sm_" + std::to_string(10 * major + minor);
    for (int bf16 = 0; bf16 < 2; ++bf16)
        for (size_t pack = 0; pack < PACKS.size(); ++pack) {
            Module module = nullptr;
            const auto code = compiled(api, bf16, PACKS[pack], architecture);
            succeeded(api.load(&module, code.data()), "cuModuleLoadData");
            for (int backward = 0; backward < 2; ++backward)
                for (int stage = 0; stage < 3; ++stage)
                    succeeded(api.function(&made->functions[bf16][pack][backward][stage], module, NAMES[backward][stage]),
                              "cuModuleGetFunction");
        }
    return made;
}

// A block's shared memory without asking for more, and the y and z of a grid.
constexpr int64_t MAX_SHARED = 48 * 1024, MAX_GRID = 65'535;

unsigned shared_bytes(Stage stage, int pack, int64_t channels) {
    if (stage == Stage::SUMS) return 2 * pack * gpu_norm::THREADS * sizeof(float);
    return stage == Stage::FINISH ? 2 * channels * sizeof(float) : 0;
}

template <typename T, int pack, bool backward>
void emulate(Stage stage, const gpu_norm::Job &job, Grid grid, size_t shared_floats) {
    at::parallel_for(0, int64_t{grid.x} * grid.y * grid.z, 1, [&](int64_t begin, int64_t end) {
        std::vector<float> shared(shared_floats);
        for (int64_t block = begin; block < end; ++block) {
            const int64_t x = block % grid.x, y = block / grid.x % grid.y, z = block / grid.x / grid.y;
            const auto at = [](int64_t index) { return static_cast<int>(index); };
            if (stage == Stage::SUMS) gpu_norm::sums<T, pack, backward>(job, at(x), at(y), at(z), shared.data());
            if (stage == Stage::FINISH) gpu_norm::finish<T, backward>(job, at(x), shared.data());
            if (stage == Stage::APPLY) gpu_norm::apply<T, pack, backward>(job, x, at(y));
        }
    });
}

template <typename T> auto emulator(int pack, bool backward) {
    if (pack == 1) return backward ? emulate<T, 1, true> : emulate<T, 1, false>;
    return backward ? emulate<T, 4, true> : emulate<T, 4, false>;
}

} // namespace

bool has_gpu_kernels(int device) { return loaded && loaded->device == device; }

bool fits_gpu_kernels(int64_t batch, int64_t channels) {
    return batch <= MAX_GRID && shared_bytes(Stage::FINISH, 1, channels) <= MAX_SHARED;
}

void launch(bool on_gpu, bool bf16, int pack, bool backward, Stage stage, const gpu_norm::Job &job, Grid grid) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    const unsigned shared = shared_bytes(stage, pack, job.channels);
    if (!on_gpu) {
        const auto run = bf16 ? emulator<gpu_norm::Bf16>(pack, backward) : emulator<float>(pack, backward);
        run(stage, job, grid, shared / sizeof(float));
        return;
    }
    make_context_current(*loaded);
    void *stream = gpus().getStreamNativeHandle(gpus().getStream(gpu(loaded->device)));
    auto copy = job;
    void *arguments[] = {&copy};
    const auto function = loaded->functions[bf16][pack == 4][backward][static_cast<int>(stage)];
    succeeded(loaded->api.launch(function, grid.x, grid.y, grid.z, gpu_norm::THREADS, 1, 1, shared, stream, arguments, nullptr),
              "cuLaunchKernel");
}

} // namespace tch_ext

extern "C" {

char *tch_ext_load_gpu_kernels(const char *path, int device) {
    return tch_ext::guarded([&] { tch_ext::loaded = tch_ext::load(path, device); });
}

void tch_ext_unload_gpu_kernels() { tch_ext::loaded.reset(); }

bool tch_ext_has_gpu_kernels() { return tch_ext::loaded != nullptr; }

// The size of the machine code for an architecture such as sm_90, compiled by the NVRTC at `path`; needs no GPU.
char *tch_ext_compile_gpu_kernels(const char *path, const char *architecture, size_t *bytes) {
    return tch_ext::guarded([&] {
        tch_ext::Api api{};
        tch_ext::find_compiler(tch_ext::open(path), api);
        *bytes = 0;
        for (bool bf16 : {false, true})
            for (int pack : tch_ext::PACKS) *bytes += tch_ext::compiled(api, bf16, pack, architecture).size();
    });
}
}
