// What a rule or a format may use on any processor: the function attribute, the tile size, IEEE operations, bit casts,
// powers. Included by rules, formats and sweeps only. Everything here lives in the namespace of the target being
// compiled.
#pragma once

#include <math.h>
#include <cfloat>
#include <cstdint>

// Each instruction set compiles its own copy of every function under its own name, so that the linker can never hand
// an AVX-512 body to a machine without it. Code that only reads the catalogue (bindings, checks) sees `host`.
#ifndef FLATSTEP_NAMESPACE
#define FLATSTEP_NAMESPACE host
#endif

#ifdef __CUDACC__
#define FLATSTEP_FN __host__ __device__ __forceinline__
#else
#define FLATSTEP_FN inline __attribute__((always_inline))
#endif

namespace flatstep::inline FLATSTEP_NAMESPACE {

FLATSTEP_FN float square_root(float x) { return ::sqrtf(x); }
FLATSTEP_FN double square_root(double x) { return ::sqrt(x); }

template <class T>
constexpr T smallest_normal = sizeof(T) == sizeof(float) ? T(FLT_MIN) : T(DBL_MIN);

FLATSTEP_FN uint32_t float_to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

FLATSTEP_FN float bits_to_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

FLATSTEP_FN int32_t as_signed(uint32_t x) { return int32_t(x); }
FLATSTEP_FN uint32_t as_unsigned(int32_t x) { return uint32_t(x); }
FLATSTEP_FN float to_float(int32_t x) { return float(x); }

// Whether the exponent's bits are all zero: of zeros and of numbers too small to be normal.
FLATSTEP_FN bool is_below_normal(float x) { return (float_to_bits(x) & 0x7f800000) == 0; }
FLATSTEP_FN bool is_below_normal(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000) == 0;
}

// a where the condition holds, else b. Rules and formats choose with it, since `?:` cannot choose in a vector number
// by number.
template <class T>
FLATSTEP_FN T select(bool condition, T a, T b) {
  return condition ? a : b;
}

// NaN where the condition holds, else x.
template <class T>
FLATSTEP_FN T nan_if(bool condition, T x) {
  return condition ? T(__builtin_nanf("")) : x;
}

// The larger of two, NaN if either is. A comparison with NaN is false, so only a needs care.
template <class V>
FLATSTEP_FN V maximum(V a, V b) {
  return nan_if(a != a, select(a > b, a, b));
}

// A moment too small to be a normal number is zero: denormals would stay and take 7 times the time.
template <class V>
FLATSTEP_FN V flush(V x) {
  return select(is_below_normal(x), V(0), x);
}

// Rounds a term that guards a division: one that is positive stays positive.
template <class T>
FLATSTEP_FN T round_guard(double eps) {
  const T rounded = T(eps);
  return eps > 0 && rounded == 0 ? smallest_normal<T> : rounded;
}

// base^exponent by right-to-left square-and-multiply: the same products in the same order on every processor, which
// no library's pow promises.
FLATSTEP_FN double power(double base, int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= base;
    base *= base;
  }
  return result;
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
