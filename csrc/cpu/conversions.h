// Vectors of numbers stored in 16 bits, in the order in which they are stored: the one place that names instructions.
// They give the bits of the format's own decode and encode. Included by cpu/streams.h alone.
#pragma once

#include "../formats/f16.h"
#include "vector.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace flatstep::inline FLATSTEP_NAMESPACE {

// As many numbers as a Vector<float> has, of 16 bits.
typedef uint16_t Halves __attribute__((vector_size(vector_bytes / 2)));

// Widens and narrows by the format's integer arithmetic,
template <class Format>
struct Conversions {
  using Bits = Vector<uint32_t>;
  static constexpr bool has_instructions = false;

  static FLATSTEP_FN Vector<float> load(const uint16_t* from) {
    Halves halves;
    __builtin_memcpy(&halves, from, sizeof halves);
    return Format::decode(Bits(__builtin_convertvector(halves, Bits::Lanes)) << 16);
  }

  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) {
    const Halves halves = __builtin_convertvector((Format::encode(value) >> 16).lanes, Halves);
    __builtin_memcpy(to, &halves, sizeof halves);
  }
};

// or by instructions for it. No type of the language leads to those everywhere: gcc 11 has none of 16 bits on x86, gcc
// 12 converts vectors of it number by number.
#if defined(__AVX512F__) || defined(__F16C__) || defined(__aarch64__)

template <>
struct Conversions<F16> {
  static constexpr bool has_instructions = true;

  static FLATSTEP_FN Vector<float> load(const uint16_t* from) {
#if defined(__AVX512F__)
    // Of all sixteen: in the forms without a mask gcc 12 warns of its own header.
    return Vector<float>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
    return Vector<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
    return Vector<float>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
#endif
  }

  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) {
#if defined(__AVX512F__)
    const __m256i halves = _mm512_maskz_cvtps_ph(0xffff, value.lanes, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
#elif defined(__F16C__)
    const __m128i halves = _mm256_cvtps_ph(value.lanes, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
#else
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(value.lanes)));
#endif
  }
};

#endif

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
