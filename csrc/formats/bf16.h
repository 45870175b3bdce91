// bfloat16: the upper half of a float32, rounded to nearest, ties to even. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

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
    const auto bits = float_to_bits(value);
    using Bits = decltype(float_to_bits(value));
    const Bits nearest = bits + 0x7fffu + (bits >> 16 & 1u);
    return select(value == value, nearest, Bits(0x7fc00000u));  // rounding up could carry a NaN out of the NaNs
  }

  using Tile = HalfTile<BF16>;
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
