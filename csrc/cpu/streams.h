// How a kernel reads and writes the numbers of a stream as vectors. Included by cpu/sweep.h alone.
#pragma once

#include "../formats/bf16.h"
#include "../formats/format.h"
#include "conversions.h"
#include "vector.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class V>
FLATSTEP_FN V load_vector(const void* from) {
  V vector;
  __builtin_memcpy(&vector.lanes, from, sizeof vector.lanes);
  return vector;
}
template <class V>
FLATSTEP_FN void store_vector(void* to, V vector) {
  __builtin_memcpy(to, &vector.lanes, sizeof vector.lanes);
}

// A block is what an iteration of a kernel's loop works on: `vectors` vectors of each stream. Either one, of numbers in
// the order in which they are stored,
template <class Format>
struct InOrder {
  using V = Vector<typename Format::Compute>;
  static constexpr int vectors = 1;

  static FLATSTEP_FN void load(const void* from, V (&block)[1]) {
    if constexpr (std::is_same_v<typename Format::Storage, typename Format::Compute>) {
      block[0] = load_vector<V>(from);
    } else {
      block[0] = Conversions<Format>::load(static_cast<const uint16_t*>(from));
    }
  }

  static FLATSTEP_FN void store(void* to, const V (&block)[1]) {
    if constexpr (std::is_same_v<typename Format::Storage, typename Format::Compute>) {
      store_vector(to, block[0]);
    } else {
      Conversions<Format>::store(static_cast<uint16_t*>(to), block[0]);
    }
  }
};

// or two, of every other number: 32 bits hold two neighbours of 16, each of which is widened where it is. For steps all
// of whose streams are stored so.
template <class Format>
struct InPairs {
  using V = Vector<float>;
  using Bits = Vector<uint32_t>;
  static constexpr int vectors = 2;

  static FLATSTEP_FN void load(const void* from, V (&block)[2]) {
    const Bits pairs = load_vector<Bits>(from);
    block[0] = Format::decode(pairs << 16);
    block[1] = Format::decode(pairs & 0xffff0000u);
  }

  static FLATSTEP_FN void store(void* to, const V (&block)[2]) {
    const Bits low = Format::encode(block[0]), high = Format::encode(block[1]);
    store_vector(to, low >> 16 | (high & 0xffff0000u));
  }
};

template <class Format, bool all_alike>
using BlockOf = std::conditional_t<std::is_same_v<Format, BF16> && all_alike, InPairs<Format>, InOrder<Format>>;

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
