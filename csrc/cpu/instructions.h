// What a target does by instructions of its own: the one place that names any. They give the bits of what they stand
// for. Included by cpu/blocks.h alone.
#pragma once

#include "../formats/bf16.h"
#include "../formats/f16.h"
#include "vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace flatstep::inline FLATSTEP_NAMESPACE {

// A vector of the type that the instructions have.
template <class T, class Lanes>
FLATSTEP_FN Vector<T> native(Lanes lanes) {
  return Vector<T>(reinterpret_cast<typename Vector<T>::Lanes>(lanes));
}

#if defined(__AVX512F__)

// One instruction makes the mask, for which gcc 12 takes three.
FLATSTEP_FN Vector<float> flush(Vector<float> x) {
  const __m512i exponent = _mm512_set1_epi32(0x7f800000);
  return Vector<float>(_mm512_maskz_mov_ps(_mm512_test_epi32_mask(_mm512_castps_si512(x.lanes), exponent), x.lanes));
}

// NaNs are replaced by one that does not overflow. Then 0x8000 is added to odd numbers and 0x7fff to even ones.
FLATSTEP_FN Vector<uint32_t> round_to_bf16(Vector<float> value) {
  const __m512i nans = _mm512_set1_epi32(0x33);  // the answer to quiet ones, and to others
  const __m512i bits = _mm512_castps_si512(_mm512_fixupimm_ps(value.lanes, value.lanes, nans, 0));
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i if_even = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_mask_add_epi32(if_even, odd, bits, _mm512_set1_epi32(0x8000));
  return native<uint32_t>(rounded);
}

#endif

// 16-bit numbers, each read into the upper half of 32 bits and written from there.
#if defined(__AVX512F__)

FLATSTEP_FN Vector<uint32_t> load_halves(const uint16_t* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return native<uint32_t>(_mm512_maskz_cvtepu16_epi32(0xffff, halves)) << 16;
}
FLATSTEP_FN void store_halves(uint16_t* to, Vector<uint32_t> x) {
  const __m256i halves = _mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>((x >> 16).lanes));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}

#elif defined(__AVX2__)

FLATSTEP_FN Vector<uint32_t> load_halves(const uint16_t* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return native<uint32_t>(_mm256_cvtepu16_epi32(halves)) << 16;
}
FLATSTEP_FN void store_halves(uint16_t* to, Vector<uint32_t> x) {
  const __m256i low = reinterpret_cast<__m256i>((x >> 16).lanes);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
}

#elif defined(__SSE2__)

FLATSTEP_FN Vector<uint32_t> load_halves(const uint16_t* from) {
  const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return native<uint32_t>(_mm_unpacklo_epi16(_mm_setzero_si128(), halves));
}
FLATSTEP_FN void store_halves(uint16_t* to, Vector<uint32_t> x) {
  const __m128i low = _mm_srai_epi32(reinterpret_cast<__m128i>(x.lanes), 16);  // signed, as packs takes them
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi32(low, low));
}

#else

typedef uint16_t Halves __attribute__((vector_size(vector_bytes / 2)));

FLATSTEP_FN Vector<uint32_t> load_halves(const uint16_t* from) {
  Halves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return Vector<uint32_t>(__builtin_convertvector(halves, Vector<uint32_t>::Lanes)) << 16;
}
FLATSTEP_FN void store_halves(uint16_t* to, Vector<uint32_t> x) {
  const Halves halves = __builtin_convertvector((x >> 16).lanes, Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

#endif

// Vectors of 16-bit numbers: read and widened, narrowed and written. By the format's own arithmetic,
template <class Format>
struct Conversions {
  static constexpr bool has_instructions = false;

  static FLATSTEP_FN Vector<float> load(const uint16_t* from) { return Format::decode(load_halves(from)); }
  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) { store_halves(to, Format::encode(value)); }
};

// or by instructions. No type of the language leads to those everywhere: gcc 11 has none of 16 bits on x86, gcc 12
// converts vectors of it number by number.
#if defined(__AVX512F__)

template <>
struct Conversions<F16> {
  static constexpr bool has_instructions = true;

  // Of all sixteen: in the forms without a mask gcc 12 warns of its own header.
  static FLATSTEP_FN Vector<float> load(const uint16_t* from) {
    return Vector<float>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
  }
  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) {
    const __m256i halves = _mm512_maskz_cvtps_ph(0xffff, value.lanes, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
  }
};

#elif defined(__F16C__)

template <>
struct Conversions<F16> {
  static constexpr bool has_instructions = true;

  static FLATSTEP_FN Vector<float> load(const uint16_t* from) {
    return Vector<float>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) {
    const __m128i halves = _mm256_cvtps_ph(value.lanes, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
  }
};

#elif defined(__aarch64__)

template <>
struct Conversions<F16> {
  static constexpr bool has_instructions = true;

  static FLATSTEP_FN Vector<float> load(const uint16_t* from) {
    return native<float>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
  }
  static FLATSTEP_FN void store(uint16_t* to, Vector<float> value) {
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(reinterpret_cast<float32x4_t>(value.lanes))));
  }
};

#endif

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
