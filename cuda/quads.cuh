// 16 bytes, the most that a thread moves at once, and rows of tables as whole numbers of them. Included by kernels.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

#ifdef __CUDACC__
using Quad = uint4;
#else
struct alignas(16) Quad {
  uint32_t words[4];
};
#endif

// From global memory, which the compiler is told.
template <class T>
FLATSTEP_FN T load_number(const T* from) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(from));
#endif
  return *from;
}

FLATSTEP_FN bool is_quad(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % sizeof(Quad) == 0; }

FLATSTEP_FN Quad load_quad(const void* memory, int64_t index) {
#ifdef __CUDA_ARCH__
  return load_number(static_cast<const Quad*>(memory) + index);
#else
  const char* const from = static_cast<const char*>(memory) + index * int64_t(sizeof(Quad));
  if (!is_quad(from)) __builtin_trap();  // a device would fail too
  Quad quad;
  __builtin_memcpy(&quad, from, sizeof quad);  // gcc 12 merged `*from` with unaligned reads of other branches
  return quad;
#endif
}

// Spelled out, because nvcc was seen to cut the store into those of single numbers.
FLATSTEP_FN void store_quad(void* memory, int64_t index, const Quad& quad) {
  Quad* const to = static_cast<Quad*>(memory) + index;
#ifdef __CUDA_ARCH__
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(quad.x), "r"(quad.y),
               "r"(quad.z), "r"(quad.w)
               : "memory");
#else
  if (!is_quad(to)) __builtin_trap();
  *to = quad;
#endif
}

// A row of a table, with what fills its last quad.
template <class T>
struct alignas(Quad) PaddedRow {
  T value;
};

template <class T>
constexpr int row_quads = int(sizeof(PaddedRow<T>) / sizeof(Quad));

template <class T>
FLATSTEP_FN T load_row(const void* table, int64_t row) {
  struct {
    Quad quads[row_quads<T>];
  } loaded;
  for (int k = 0; k < row_quads<T>; ++k) loaded.quads[k] = load_quad(table, row * row_quads<T> + k);
  return __builtin_bit_cast(PaddedRow<T>, loaded).value;
}

// Fills the last quad with zeros, so that no byte is read that was not written.
template <class T>
FLATSTEP_FN void store_row(void* table, int64_t row, const T& value) {
  Quad stored[row_quads<T>] = {};
  __builtin_memcpy(stored, &value, sizeof value);
  for (int k = 0; k < row_quads<T>; ++k) store_quad(table, row * row_quads<T> + k, stored[k]);
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
