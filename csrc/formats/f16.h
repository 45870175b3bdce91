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

  template <class Bits>
  static FLATSTEP_FN auto decode(Bits upper) {
    const auto size = as_signed(upper >> 3 & 0x7fffu << 13);
    using Signed = decltype(as_signed(upper));
    const Signed denormal = as_signed(float_to_bits(to_float(size) * 0x1p-37f));             // exact
    const Signed above = select(size < (0x7c00 << 13), Signed(rebias), Signed(2 * rebias));  // twice: infinity stays
    const Signed magnitude = select(size < (0x0400 << 13), denormal, size + above);
    return bits_to_float((upper & 0x80000000u) | as_unsigned(magnitude));
  }

  // A ruler is a power of two whose last bit is where the number's shall be, so that adding it rounds as needed, and
  // leaves the number in the low bits, counted in units of that bit. Its exponent, 127 + 13 too large, is added at
  // the place of float16's, where the excess looks like 12, for lack of bits; the ruler's 2 make that 14.
  template <class V>
  static FLATSTEP_FN auto encode(V value) {
    const auto bits = float_to_bits(value);
    const auto size = as_signed(bits & 0x7fffffffu);
    using Bits = decltype(float_to_bits(value));
    using Signed = decltype(as_signed(bits));
    const Signed bounded = select(size < too_large, size, Signed(too_large));
    const Signed power = bounded & 0x7f800000;
    const Signed unit = select(power > smallest, power, Signed(smallest));
    const Bits ruler = as_unsigned(unit + ((13 << 23) + (2 << 10)));
    const Bits sum = float_to_bits(bits_to_float(as_unsigned(bounded)) + bits_to_float(ruler));
    const Bits magnitude = (sum << 16) + (ruler << 3);
    const Bits if_nan = select(size > 0x7f800000, Bits(0x200u << 16), Bits(0u));
    return magnitude | if_nan | (bits & 0x80000000u);
  }

  using Tile = HalfTile<F16>;
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
