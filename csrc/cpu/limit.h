// What memory allows: the streams of a step read and written with no maths. For benchmarks; included by
// cpu/target.cpp alone.
#pragma once

#include "../call.h"
#include "../host_device.h"

// Stands before a loop whose iterations touch different elements, which the compiler cannot see through the pointers.
#if defined(__clang__)
#define FLATSTEP_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) interleave(disable)")
#else
#define FLATSTEP_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Reads param, grad and `slots` state streams of 4-byte words, and writes all of them but grad. Each word written is
// another stream's, so that nothing can be left out; the exclusive or brings in the one that would be left over.
// `ahead` words are prefetched; 0 leaves that to the hardware.
template <int slots, int ahead>
void move_streams(const Call& call, int64_t first, int64_t last) noexcept {
  const Segment& segment = *call.segments;
  auto* const param = static_cast<uint32_t*>(segment.param);
  const auto* const grad = static_cast<const uint32_t*>(segment.grad);
  uint32_t* state[slots + 1];
  for (int slot = 0; slot < slots; ++slot) state[slot] = static_cast<uint32_t*>(segment.state[slot]);
  for (int64_t i = first; i < last; i += tile_size) {
    const int count = last - i < tile_size ? int(last - i) : tile_size;
    for (int k = 0; ahead && k < tile_size; k += 16) {
      __builtin_prefetch(param + i + ahead + k, 1);
      __builtin_prefetch(grad + i + ahead + k, 0);
      for (int slot = 0; slot < slots; ++slot) __builtin_prefetch(state[slot] + i + ahead + k, 1);
    }
    FLATSTEP_INDEPENDENT
    for (int k = 0; k < count; ++k) {
      uint32_t word = param[i + k];
      param[i + k] = grad[i + k] ^ word;
      for (int slot = 0; slot < slots; ++slot) {
        const uint32_t next = state[slot][i + k];
        state[slot][i + k] = word;
        word = next;
      }
    }
  }
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
