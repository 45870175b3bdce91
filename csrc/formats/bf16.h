// bfloat16: the upper half of a float32, rounded to nearest, ties to even. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct BF16 {
  static constexpr const char* name = "bfloat16";
  using Compute = float;
  using Storage = uint16_t;

  struct Tile {
    uint16_t* numbers;

    FLATSTEP_FN Tile(void* memory, int64_t first) : numbers(static_cast<uint16_t*>(memory) + first) {}

    FLATSTEP_FN float load(int k) const { return bits_to_float(uint32_t(numbers[k]) << 16); }

    FLATSTEP_FN void store(int k, float value) const {
      const uint32_t bits = float_to_bits(value);
      const uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
      const uint32_t if_nan = value == value ? 0 : 0x7fc00000;  // rounding up may have carried it out of the NaNs
      numbers[k] = uint16_t((nearest | if_nan) >> 16);
    }
  };
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
