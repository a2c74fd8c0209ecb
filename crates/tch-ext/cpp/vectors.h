// The widest vectors of the processor that a file of kernels is compiled for; wider ones would be passed through memory. Each
// file has copies of its own, because the linker would keep only one, which another processor might not be able to run.
#pragma once
#include <cstdint>
#if defined __AVX512BF16__
#include <immintrin.h>
#endif

namespace tch_ext {
namespace {

#if defined __AVX512F__
constexpr int64_t LANES = 16;
#elif defined __AVX2__
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t BitLanes __attribute__((vector_size(4 * LANES)));
typedef uint16_t HalfLanes __attribute__((vector_size(2 * LANES)));

// A call would spill every register.
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

// The values of bf16.
INLINE Lanes widened(HalfLanes halves) {
    return __builtin_bit_cast(Lanes, __builtin_convertvector(halves, BitLanes) << 16);
}

// Rounds to the nearest bf16, ties to even, as libtorch does.
INLINE HalfLanes halved(Lanes lanes) {
#if defined __AVX512BF16__
    return (HalfLanes)_mm512_cvtneps_pbh((__m512)lanes);
#else
    const auto bits = __builtin_bit_cast(BitLanes, lanes);
    const BitLanes rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const BitLanes nan = BitLanes{} + 0x7fc0u;
    return __builtin_convertvector(lanes == lanes ? rounded : nan, HalfLanes);
#endif
}

} // namespace
} // namespace tch_ext
