// The streams of a step, and the one loop over them: load -> update -> store. Included by cpu/sweep.h alone.
#pragma once

#include <utility>  // std::integer_sequence, a type: it leaves no symbol behind

#include "../rules/rule.h"
#include "blocks.h"
#include "tile.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class R, class L, class Slots = std::make_integer_sequence<int, slot_count<R>>>
struct Streams;

// Param, grad and state of rule R on layout L, from one element on.
template <class R, class L, int... slot>
struct Streams<R, L, std::integer_sequence<int, slot...>> {
  using T = typename L::Compute;
  using Param = typename L::Param;
  using Grad = typename L::Grad;
  template <int index>
  using State = typename L::template Slot<R::slots[index].role>;

  static constexpr bool all_of_one_format = std::is_same_v<Grad, Param> && (std::is_same_v<State<slot>, Param> && ...);
  template <class Format>
  using BlockOf = Block<Format, all_of_one_format>;
  static constexpr int vectors = BlockOf<Param>::vectors;
  static constexpr int block_size = vectors * Vector<T>::size;  // in elements

  template <class Format>
  static constexpr int bytes = sizeof(typename Format::Storage);

  char* param;
  const char* grad;
  char* state[slot_count<R>];

  static FLATSTEP_FN Streams at(const Segment& segment, int64_t element) {
    return {static_cast<char*>(segment.param) + element * bytes<Param>,
            static_cast<const char*>(segment.grad) + element * bytes<Grad>,
            {static_cast<char*>(segment.state[slot]) + element * bytes<State<slot>>...}};
  }

  // Updates whole blocks, those that hold the first `count` elements.
  template <class Coefficients>
  FLATSTEP_FN void update(const Coefficients& coefficients, int count) const {
    for (int k = 0; k < count; k += block_size) {
      Vector<T> p[vectors], g[vectors], s[slot_count<R>][vectors];
      BlockOf<Param>::load(param + k * bytes<Param>, p);
      BlockOf<Grad>::load(grad + k * bytes<Grad>, g);
      (BlockOf<State<slot>>::load(state[slot] + k * bytes<State<slot>>, s[slot]), ...);
      for (int v = 0; v < vectors; ++v) {
        Vector<T> values[] = {s[slot][v]...};
        R::update(p[v], g[v], values, coefficients);
        ((s[slot][v] = values[slot]), ...);
      }
      BlockOf<Param>::store(param + k * bytes<Param>, p);
      (BlockOf<State<slot>>::store(state[slot] + k * bytes<State<slot>>, s[slot]), ...);
    }
  }

  // Asks for the elements from `ahead` on that fill a tile.
  FLATSTEP_FN void prefetch_tile(int64_t ahead, bool grad_too) const {
    constexpr int size = tile_size<typename Param::Storage>;
    prefetch(param + ahead * bytes<Param>, size * bytes<Param>, true);
    if (grad_too) prefetch(grad + ahead * bytes<Grad>, size * bytes<Grad>, false);
    (prefetch(state[slot] + ahead * bytes<State<slot>>, size * bytes<State<slot>>, true), ...);
  }

  // A block in memory of its own, for elements that do not fill one.
  struct Partial {
    static constexpr int capacity = block_size * int(sizeof(T));
    alignas(cache_line) char param[capacity];
    alignas(cache_line) char grad[capacity];
    alignas(cache_line) char state[slot_count<R>][capacity];

    FLATSTEP_FN Streams load(const Streams& from, int count) {
      __builtin_memset(this, 0, sizeof *this);
      __builtin_memcpy(param, from.param, size_t(count * bytes<Param>));
      __builtin_memcpy(grad, from.grad, size_t(count * bytes<Grad>));
      (__builtin_memcpy(state[slot], from.state[slot], size_t(count * bytes<State<slot>>)), ...);
      return {param, grad, {state[slot]...}};
    }

    FLATSTEP_FN void store(const Streams& to, int count) const {
      __builtin_memcpy(to.param, param, size_t(count * bytes<Param>));
      (__builtin_memcpy(to.state[slot], state[slot], size_t(count * bytes<State<slot>>)), ...);
    }
  };
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
