// Conversions of 16-bit formats as the kernels of one CPU target make them, block by block. For conversions.cpp.
#pragma once

#include <cstdint>

namespace flatstep::testing {

// Numbers in the order in which they are stored, a multiple of `most_in_block` of them.
struct BlockConversion {
  const char* format;
  void (*read)(const uint16_t* from, float* to, int64_t count);
  void (*write)(const float* from, uint16_t* to, int64_t count);
};

constexpr int64_t most_in_block = 64;

// Each format, in each kind of block that it may have.
constexpr int conversion_count = 4;
using BlockConversions = BlockConversion[conversion_count];

}  // namespace flatstep::testing
