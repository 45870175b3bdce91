// float16 (IEEE binary16), rounded to nearest, ties to even, denormals and all. Used by catalog.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// In integers, because not every target has instructions for it, and all must agree.
struct F16 {
  static constexpr const char* name = "float16";
  using Compute = float;
  using Storage = uint16_t;

  static constexpr uint32_t rebias = uint32_t(127 - 15) << 23;  // between the two formats' exponents
  static constexpr uint32_t infinity = 0x7f800000;

  struct Tile {
    uint16_t* numbers;

    FLATSTEP_FN Tile(void* memory, int64_t first) : numbers(static_cast<uint16_t*>(memory) + first) {}

    FLATSTEP_FN float load(int k) const {
      const uint32_t bits = numbers[k], size = bits & 0x7fff;
      const uint32_t denormal = float_to_bits(float(int32_t(size)) * 0x1p-24f);  // exact
      const uint32_t normal = (size << 13) + rebias;
      const uint32_t not_finite = size << 13 | infinity;
      const uint32_t finite = size < 0x0400 ? denormal : normal;
      return bits_to_float((bits & 0x8000) << 16 | (size < 0x7c00 ? finite : not_finite));
    }

    FLATSTEP_FN void store(int k, float value) const {
      const uint32_t bits = float_to_bits(value), size = bits & 0x7fffffff;
      // One half has its last bit where denormals have theirs: the sum is rounded as they must be.
      const uint32_t denormal = float_to_bits(bits_to_float(size) + 0.5f) - float_to_bits(0.5f);
      const uint32_t normal = (size - rebias + 0xfff + (size >> 13 & 1)) >> 13;
      const uint32_t not_finite = size > infinity ? 0x7e00 : 0x7c00;
      const uint32_t finite = size < 0x38800000 ? denormal : normal;     // below 2^-14
      const uint32_t nearest = size < 0x477ff000 ? finite : not_finite;  // from 65520 on, which is nearer to 2^16
      numbers[k] = uint16_t((bits >> 16 & 0x8000) | nearest);
    }
  };
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
