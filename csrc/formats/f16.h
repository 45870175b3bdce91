// float16 (IEEE binary16), rounded to nearest, ties to even, denormals and all. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// In integers, because not every target has instructions for it, and all must agree. Signed ones, which older
// instruction sets compare too; at their place in a float32, so that compilers do not take them apart into 16-bit ones.
struct F16 {
  static constexpr const char* name = "float16";
  using Compute = float;
  using Storage = uint16_t;

  static constexpr int32_t rebias = (127 - 15) << 23;     // between the two formats' exponents
  static constexpr int32_t too_large = (127 + 16) << 23;  // rounds to infinity
  static constexpr int32_t smallest = (127 - 14) << 23;   // of the normal numbers

  struct Tile {
    uint16_t* numbers;

    FLATSTEP_FN Tile(void* memory, int64_t first) : numbers(static_cast<uint16_t*>(memory) + first) {}

    FLATSTEP_FN float load(int k) const {
      const uint32_t bits = numbers[k];
      const auto size = int32_t(bits << 13 & 0x7fff << 13);
      const auto denormal = int32_t(float_to_bits(float(size) * 0x1p-37f));  // exact
      const int32_t above = size < 0x7c00 << 13 ? rebias : 2 * rebias;       // twice: infinity stays what it is
      const int32_t magnitude = size < 0x0400 << 13 ? denormal : size + above;
      return bits_to_float((bits << 16 & 0x80000000) | uint32_t(magnitude));
    }

    // A ruler is a power of two whose last bit is where the number's shall be, so that adding it rounds as needed, and
    // leaves the number in the low bits, counted in units of that bit. Its exponent, 127 + 13 too large, is added at
    // the place of float16's, where the excess looks like 12, for lack of bits; the ruler's 2 make that 14.
    FLATSTEP_FN void store(int k, float value) const {
      const uint32_t bits = float_to_bits(value);
      const auto size = int32_t(bits & 0x7fffffff);
      const int32_t bounded = size < too_large ? size : too_large;
      const int32_t power = bounded & 0x7f800000, unit = power > smallest ? power : smallest;
      const auto ruler = uint32_t(unit + (13 << 23) + (2 << 10));
      const uint32_t sum = float_to_bits(bits_to_float(uint32_t(bounded)) + bits_to_float(ruler));
      const uint32_t magnitude = (sum << 16) + (ruler << 3);
      const uint32_t if_nan = size > 0x7f800000 ? 0x200 << 16 : 0;
      numbers[k] = uint16_t((magnitude | if_nan | (bits & 0x80000000)) >> 16);
    }
  };
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
