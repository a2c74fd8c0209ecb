// Which of the kernels that are compiled for several processors this one runs.
#pragma once

namespace tch_ext {

enum class Processor { any, avx2, avx512 };

// The most that the processor has and ATEN_CPU_CAPABILITY, libtorch's own switch, allows.
Processor this_processor();

// "any", "avx2" or "avx512", a constant.
const char *name_of(Processor);

// Whether oneDNN, libtorch's library for convolutions and matrix products, finds instructions for bf16 here. It works without
// them, at a tenth of its speed in f32.
bool multiplies_bf16();

// The variant of `kernels` for this processor; those for x86-64 exist only there.
#ifdef __x86_64__
#define KERNELS_OF_THIS_PROCESSOR(kernels)                                                                                  \
    (::tch_ext::this_processor() == ::tch_ext::Processor::avx512 ? kernels##_avx512                                         \
     : ::tch_ext::this_processor() == ::tch_ext::Processor::avx2 ? kernels##_avx2                                           \
                                                                 : kernels##_any)
#else
#define KERNELS_OF_THIS_PROCESSOR(kernels) (kernels##_any)
#endif

} // namespace tch_ext
