// Tiles as a sweep works on them. Included by cpu/sweep.h alone.
#pragma once

#include "../call.h"
#include "../formats/format.h"
#include "conversions.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// The first `count` numbers of a tile, for the time of an update; what was stored is in memory after close(). It is the
// format's own tile,
template <class Format>
struct Opened : Format::Tile {
  FLATSTEP_FN Opened(void* memory, int64_t first, int) : Format::Tile(memory, first) {}
  FLATSTEP_FN void close(int) const {}
};

// or, where the instruction set converts the format by itself, a copy in the type in which a rule works.
template <class Format>
  requires requires { typename Conversions<Format>::Wide; }
struct Opened<Format> {
  using Storage = typename Format::Storage;
  using Compute = typename Format::Compute;
  using Narrow = typename Conversions<Format>::Narrow;
  using Wide = typename Conversions<Format>::Wide;
  static constexpr int width = int(sizeof(Narrow) / sizeof(Storage));
  static_assert(sizeof(Wide) == width * sizeof(Compute) && tile_size % width == 0);

  Storage* numbers;
  alignas(cache_line) Compute values[tile_size];

  FLATSTEP_FN Opened(void* memory, int64_t first, int count) : numbers(static_cast<Storage*>(memory) + first) {
    int k = 0;
    for (; k + width <= count; k += width) widen(numbers + k, k);
    if (k < count) {
      Storage rest[width] = {};
      for (int i = k; i < count; ++i) rest[i - k] = numbers[i];
      widen(rest, k);
    }
    // Else clang hands the first of them on to the update's loop in a register, and then cannot vectorise that.
    asm("" : "+m"(values));
  }

  FLATSTEP_FN void close(int count) const {
    int k = 0;
    for (; k + width <= count; k += width) narrow(k, numbers + k);
    if (k < count) {
      Storage rest[width];
      narrow(k, rest);
      for (int i = k; i < count; ++i) numbers[i] = rest[i - k];
    }
  }

  FLATSTEP_FN Compute load(int k) const { return values[k]; }
  FLATSTEP_FN void store(int k, Compute value) { values[k] = value; }

 private:
  FLATSTEP_FN void widen(const Storage* from, int k) {
    Narrow narrow;
    __builtin_memcpy(&narrow, from, sizeof narrow);
    const Wide wide = Conversions<Format>::widen(narrow);
    __builtin_memcpy(values + k, &wide, sizeof wide);
  }

  FLATSTEP_FN void narrow(int k, Storage* to) const {
    Wide wide;
    __builtin_memcpy(&wide, values + k, sizeof wide);
    const Narrow narrow = Conversions<Format>::narrow(wide);
    __builtin_memcpy(to, &narrow, sizeof narrow);
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
