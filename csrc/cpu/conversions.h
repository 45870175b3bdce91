// The formats that an instruction set converts by itself, and its instructions for that: the one place that names any.
// They give the bits of the format's own load and store. Included by cpu/opened.h alone.
#pragma once

#include "../formats/f16.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Narrow, Wide   vectors of as many numbers, as stored and as computed
// widen, narrow  from one to the other, rounded to nearest, ties to even
//
// Empty where the instruction set has none. No type of the language leads to these instructions everywhere: gcc 11 has
// none of 16 bits on x86, gcc 12 converts vectors of it number by number, and so does clang 14 where a rule selects.
template <class Format>
struct Conversions {};

#if defined(__AVX512F__)

template <>
struct Conversions<F16> {
  using Narrow = __m256i;
  using Wide = __m512;
  // Of all sixteen: in the forms without a mask gcc 12 warns of its own header.
  static FLATSTEP_FN Wide widen(Narrow x) { return _mm512_maskz_cvtph_ps(0xffff, x); }
  static FLATSTEP_FN Narrow narrow(Wide x) { return _mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT); }
};

#elif defined(__F16C__)

template <>
struct Conversions<F16> {
  using Narrow = __m128i;
  using Wide = __m256;
  static FLATSTEP_FN Wide widen(Narrow x) { return _mm256_cvtph_ps(x); }
  static FLATSTEP_FN Narrow narrow(Wide x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
};

#elif defined(__aarch64__)

template <>
struct Conversions<F16> {
  using Narrow = float16x4_t;
  using Wide = float32x4_t;
  static FLATSTEP_FN Wide widen(Narrow x) { return vcvt_f32_f16(x); }
  static FLATSTEP_FN Narrow narrow(Wide x) { return vcvt_f16_f32(x); }
};

#endif

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
