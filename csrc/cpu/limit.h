// What memory allows: the streams of a step read and written with no maths. For benchmarks; included by
// cpu/target.cpp alone.
#pragma once

#include "tile.h"

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
  constexpr int tile = tile_size<uint32_t>;
  for (int64_t i = first; i < last; i += tile) {
    const int count = last - i < tile ? int(last - i) : tile;
    if (ahead) {
      prefetch(reinterpret_cast<const char*>(param + i + ahead), tile_bytes, true);
      prefetch(reinterpret_cast<const char*>(grad + i + ahead), tile_bytes, false);
      for (int slot = 0; slot < slots; ++slot) {
        prefetch(reinterpret_cast<const char*>(state[slot] + i + ahead), tile_bytes, true);
      }
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
