// See blocks.h. Compiled once for each CPU target, with its flags and in its namespace.
#include "cpu/blocks.h"

#include "blocks.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// The vector and the place in it where a block has its number i.
template <template <class> class Block, class Format>
struct Blocks {
  using B = Block<Format>;
  static constexpr int vectors = B::vectors, size = vectors * Vector<float>::size;
  static_assert(testing::most_in_block % size == 0);

  static void read(const uint16_t* from, float* to, int64_t count) {
    for (int64_t first = 0; first < count; first += size) {
      Vector<float> block[vectors];
      B::load(from + first, block);
      for (int i = 0; i < size; ++i) to[first + i] = block[i % vectors].lanes[i / vectors];
    }
  }

  static void write(const float* from, uint16_t* to, int64_t count) {
    for (int64_t first = 0; first < count; first += size) {
      Vector<float> block[vectors];
      for (int i = 0; i < size; ++i) block[i % vectors].lanes[i / vectors] = from[first + i];
      B::store(to + first, block);
    }
  }

  static constexpr testing::BlockConversion conversion = {Format::name, &read, &write};
};

extern const testing::BlockConversions block_conversions;
const testing::BlockConversions block_conversions = {Blocks<InOrder, F16>::conversion, Blocks<InPairs, F16>::conversion,
                                                     Blocks<InOrder, BF16>::conversion,
                                                     Blocks<InPairs, BF16>::conversion};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
