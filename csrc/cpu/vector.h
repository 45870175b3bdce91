// The value type of CPU kernels: one vector of the target's native width, written in a rule as if it were one number.
// Included by csrc/cpu alone: nvcc does not compile it.
#pragma once

#include "../host_device.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Wider ones would be split, and compilers keep the halves in memory.
#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// The compiler's own vectors. Listed, because gcc does not tell vectors of a template's parameter from single numbers.
template <class T>
struct Native;
template <>
struct Native<float> {
  typedef float Lanes __attribute__((vector_size(vector_bytes)));
};
template <>
struct Native<double> {
  typedef double Lanes __attribute__((vector_size(vector_bytes)));
};
template <>
struct Native<int32_t> {
  typedef int32_t Lanes __attribute__((vector_size(vector_bytes)));
};
template <>
struct Native<uint32_t> {
  typedef uint32_t Lanes __attribute__((vector_size(vector_bytes)));
};
template <>
struct Native<uint64_t> {
  typedef uint64_t Lanes __attribute__((vector_size(vector_bytes)));
};

// What a comparison of Vector<T>s gives: all bits of a number set or none.
template <class T>
struct Mask {
  using Lanes = decltype(typename Native<T>::Lanes{} < typename Native<T>::Lanes{});

  Lanes lanes;
};

// Each operation is T's, number by number. A T beside a vector stands for a vector of equal numbers. The functions that
// rules call are found by argument-dependent lookup, so their overloads stand in this namespace.
template <class T>
struct Vector {
  using Lanes = typename Native<T>::Lanes;
  static constexpr int size = vector_bytes / int(sizeof(T));

  Lanes lanes;

  Vector() = default;
  FLATSTEP_FN Vector(T x) : lanes(x - Lanes{}) {}  // a broadcast: exact, for -0.0 too
  FLATSTEP_FN explicit Vector(Lanes lanes) : lanes(lanes) {}

  friend FLATSTEP_FN Vector operator+(Vector a, Vector b) { return Vector(a.lanes + b.lanes); }
  friend FLATSTEP_FN Vector operator-(Vector a, Vector b) { return Vector(a.lanes - b.lanes); }
  friend FLATSTEP_FN Vector operator*(Vector a, Vector b) { return Vector(a.lanes * b.lanes); }
  friend FLATSTEP_FN Vector operator/(Vector a, Vector b) { return Vector(a.lanes / b.lanes); }
  friend FLATSTEP_FN Vector operator&(Vector a, Vector b) { return Vector(a.lanes & b.lanes); }
  friend FLATSTEP_FN Vector operator|(Vector a, Vector b) { return Vector(a.lanes | b.lanes); }
  friend FLATSTEP_FN Vector operator<<(Vector a, int bits) { return Vector(a.lanes << bits); }
  friend FLATSTEP_FN Vector operator>>(Vector a, int bits) { return Vector(a.lanes >> bits); }

  friend FLATSTEP_FN Mask<T> operator==(Vector a, Vector b) { return {a.lanes == b.lanes}; }
  friend FLATSTEP_FN Mask<T> operator!=(Vector a, Vector b) { return {a.lanes != b.lanes}; }
  friend FLATSTEP_FN Mask<T> operator<(Vector a, Vector b) { return {a.lanes < b.lanes}; }
  friend FLATSTEP_FN Mask<T> operator>(Vector a, Vector b) { return {a.lanes > b.lanes}; }
};

// The same bits as vectors of another type of number.
template <class To, class From>
FLATSTEP_FN Vector<To> reinterpret(Vector<From> x) {
  return Vector<To>(reinterpret_cast<typename Native<To>::Lanes>(x.lanes));
}
FLATSTEP_FN Vector<uint32_t> float_to_bits(Vector<float> x) { return reinterpret<uint32_t>(x); }
FLATSTEP_FN Vector<float> bits_to_float(Vector<uint32_t> bits) { return reinterpret<float>(bits); }
FLATSTEP_FN Vector<int32_t> as_signed(Vector<uint32_t> x) { return reinterpret<int32_t>(x); }
FLATSTEP_FN Vector<uint32_t> as_unsigned(Vector<int32_t> x) { return reinterpret<uint32_t>(x); }
FLATSTEP_FN Vector<float> to_float(Vector<int32_t> x) {
  return Vector<float>(__builtin_convertvector(x.lanes, Native<float>::Lanes));
}

template <class T>
FLATSTEP_FN Vector<T> square_root(Vector<T> x) {
  Vector<T> root;
  for (int k = 0; k < Vector<T>::size; ++k) root.lanes[k] = square_root(T(x.lanes[k]));  // becomes one instruction
  return root;
}

template <class M, class T>
FLATSTEP_FN Vector<T> select(Mask<M> mask, Vector<T> a, Vector<T> b) {
  static_assert(sizeof(M) == sizeof(T));
  return Vector<T>(mask.lanes ? a.lanes : b.lanes);
}

// With one condition for all numbers. The mask is made before the loop, which then blends and does not branch.
template <class T>
FLATSTEP_FN Vector<T> select(bool condition, Vector<T> a, Vector<T> b) {
  return select(Vector<T>(T(condition)) != T(0), a, b);
}

template <class T>
FLATSTEP_FN Vector<T> nan_if(Mask<T> mask, Vector<T> x) {
#if defined(__AVX512F__)
  return select(mask, Vector<T>(T(__builtin_nanf(""))), x);
#else
  using Bits = typename Mask<T>::Lanes;  // any NaN will do, and that of all bits takes one operation
  return Vector<T>(reinterpret_cast<typename Native<T>::Lanes>(mask.lanes | reinterpret_cast<Bits>(x.lanes)));
#endif
}

FLATSTEP_FN Mask<uint32_t> is_below_normal(Vector<float> x) { return (float_to_bits(x) & 0x7f800000u) == 0u; }
FLATSTEP_FN Mask<uint64_t> is_below_normal(Vector<double> x) {
  return (reinterpret<uint64_t>(x) & uint64_t{0x7ff0000000000000}) == uint64_t{0};
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
