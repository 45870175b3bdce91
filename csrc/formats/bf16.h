// bfloat16: the upper half of a float32, rounded to nearest, ties to even. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// In the upper half of the result; the lower one is left over. Rounding up would carry some NaNs out of the NaNs.
template <class V>
FLATSTEP_FN auto round_to_bf16(V value) {
  const auto bits = float_to_bits(value);
  using Bits = decltype(float_to_bits(value));
  return select(value != value, Bits(~0u), bits + 0x7fffu + (bits >> 16 & 1u));
}

struct BF16 {
  static constexpr const char* name = "bfloat16";
  using Compute = float;
  using Storage = uint16_t;

  template <class Bits>
  static FLATSTEP_FN auto decode(Bits upper) {
    return bits_to_float(upper);
  }

  template <class V>
  static FLATSTEP_FN auto encode(V value) {
    return round_to_bf16(value);
  }

  using Tile = HalfTile<BF16>;
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
