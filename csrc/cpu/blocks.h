// Blocks: what one iteration of a kernel's loop reads of a stream and writes to it. Included by cpu/streams.h alone.
#pragma once

#include "../formats/format.h"
#include "instructions.h"
#include "vector.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class T>
FLATSTEP_FN Vector<T> load_vector(const void* from) {
  Vector<T> vector;
  __builtin_memcpy(&vector.lanes, from, sizeof vector.lanes);
  return vector;
}

template <class T>
FLATSTEP_FN void store_vector(void* to, Vector<T> vector) {
  __builtin_memcpy(to, &vector.lanes, sizeof vector.lanes);
}

// A block of one vector, of numbers in the order in which they are stored.
template <class Format>
struct InOrder {
  using T = typename Format::Compute;
  static constexpr int vectors = 1;

  static FLATSTEP_FN void load(const void* from, Vector<T> (&block)[1]) {
    if constexpr (std::is_same_v<typename Format::Storage, T>) {
      block[0] = load_vector<T>(from);
    } else {
      block[0] = Conversions<Format>::load(static_cast<const uint16_t*>(from));
    }
  }

  static FLATSTEP_FN void store(void* to, const Vector<T> (&block)[1]) {
    if constexpr (std::is_same_v<typename Format::Storage, T>) {
      store_vector(to, block[0]);
    } else {
      Conversions<Format>::store(static_cast<uint16_t*>(to), block[0]);
    }
  }
};

// A block of two vectors: one of the numbers with even indices, one of those with odd ones. In 32 bits lie two
// neighbours of 16 bits, and each is widened where it lies. For steps whose streams are all of one format.
template <class Format>
struct InPairs {
  static constexpr int vectors = 2;

  static FLATSTEP_FN void load(const void* from, Vector<float> (&block)[2]) {
    const auto pairs = load_vector<uint32_t>(from);
    block[0] = Format::decode(pairs << 16);
    block[1] = Format::decode(pairs & 0xffff0000u);
  }

  static FLATSTEP_FN void store(void* to, const Vector<float> (&block)[2]) {
    store_vector(to, Format::encode(block[0]) >> 16 | (Format::encode(block[1]) & 0xffff0000u));
  }
};

template <class Format>
constexpr bool is_half = sizeof(typename Format::Storage) == 2;

template <class Format, bool all_of_one_format>
using Block = std::conditional_t<is_half<Format> && all_of_one_format && !Conversions<Format>::has_instructions,
                                 InPairs<Format>, InOrder<Format>>;

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
