// Selects among the kernels that are compiled for several instruction sets.
#pragma once

namespace tch_ext {

enum class Processor { any, avx2, avx512 };

// The best that the processor supports and ATEN_CPU_CAPABILITY, libtorch's own setting, allows.
Processor this_processor();

// "any", "avx2" or "avx512", a constant.
const char *name_of(Processor);

// Whether oneDNN, libtorch's library for convolutions and matrix products, finds instructions for bf16 here. Without
// them it works at a tenth of its speed in f32.
bool multiplies_bf16();

// Whether it finds a matrix unit for bf16 here (AMX).
bool multiplies_bf16_in_tiles();

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
