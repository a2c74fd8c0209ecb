#include "processor.h"

#include <ATen/Version.h>

#include <cctype>
#include <cstdlib>
#include <string>

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace tch_ext {

Processor this_processor() {
#ifdef __x86_64__
    static const Processor processor = [] {
        // All features of the levels x86-64-v3 and x86-64-v4.
        const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
                        __builtin_cpu_supports("movbe") && __builtin_cpu_supports("f16c");
        const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
        const std::string allowed = at::get_cpu_capability();
        if (v4 && allowed == "AVX512") return Processor::avx512;
        if (v3 && (allowed == "AVX512" || allowed == "AVX2")) return Processor::avx2;
        return Processor::any;
    }();
    return processor;
#else
    return Processor::any;
#endif
}

#ifdef __x86_64__
namespace {

// The most that oneDNN may use by its own setting, in capitals; empty if nothing is set. It exports no function that
// reports this.
std::string limit_of_onednn() {
    for (const char *variable : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
        const char *value = std::getenv(variable);
        if (!value || !*value) continue;
        std::string most = value;
        for (char &letter : most) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
        return most;
    }
    return {};
}

} // namespace
#endif

bool multiplies_bf16() {
#ifdef __x86_64__
    static const bool multiplies = [] {
        if (this_processor() != Processor::avx512 || !__builtin_cpu_supports("avx512bf16")) return false;
        const std::string most = limit_of_onednn();
        for (const char *lesser : {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"})
            if (most == lesser) return false;
        return true;
    }();
    return multiplies;
#else
    return false;
#endif
}

bool multiplies_bf16_in_tiles() {
#ifdef __x86_64__
    static const bool multiplies = [] {
        // Not every compiler knows the feature's name.
        unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
        const bool has_unit = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 22 & 1);
        const std::string most = limit_of_onednn();
        const bool allowed =
            most.empty() || most == "ALL" || most == "DEFAULT" || most.find("AMX") != std::string::npos;
        return has_unit && allowed && multiplies_bf16();
    }();
    return multiplies;
#else
    return false;
#endif
}

const char *name_of(Processor processor) {
    switch (processor) {
    case Processor::avx512: return "avx512";
    case Processor::avx2: return "avx2";
    case Processor::any: break;
    }
    return "any";
}

} // namespace tch_ext

// The name of the kernels in use, a constant.
extern "C" const char *tch_ext_processor() { return tch_ext::name_of(tch_ext::this_processor()); }

extern "C" bool tch_ext_multiplies_bf16() { return tch_ext::multiplies_bf16(); }
