// One pass over memory: vector by vector, load -> update -> store. Included by cpu/rule.cpp.in and cpu/target.cpp.
#pragma once

#include <utility>  // std::index_sequence, a type: it leaves no symbol behind

#include "../formats/format.h"
#include "streams.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// How far ahead each stream is asked for: the hardware follows a few streams well, seven or more badly.
constexpr int64_t prefetch_ahead = 512;

template <class Format>
FLATSTEP_FN void prefetch(const void* memory, int64_t element, bool will_write) {
  using Storage = typename Format::Storage;
  const char* from = reinterpret_cast<const char*>(static_cast<const Storage*>(memory) + element);
  for (int64_t offset = 0; offset < int64_t(tile_size * sizeof(Storage)); offset += cache_line) {
    if (will_write) {
      __builtin_prefetch(from + offset, 1);
    } else {
      __builtin_prefetch(from + offset, 0);
    }
  }
}

// Copies `count` numbers of a strided gradient, from the element `first` on in the parameter's order: run by run along
// the innermost axis.
template <class Storage>
__attribute__((noinline)) void gather(const void* grad, const Walk& walk, int64_t first, int count, Storage* to) {
  const int inner = walk.axes - 1;
  for (int done = 0; done < count;) {
    int64_t rest = (first + done) / walk.shape[inner];
    const int64_t along = (first + done) % walk.shape[inner], stride = walk.strides[inner];
    int64_t offset = along * stride;
    for (int axis = inner - 1; axis >= 0; --axis) {
      offset += rest % walk.shape[axis] * walk.strides[axis];
      rest /= walk.shape[axis];
    }
    const auto* from = static_cast<const Storage*>(grad) + offset;
    const int64_t left = walk.shape[inner] - along;
    const int run = left < count - done ? int(left) : count - done;
    for (int k = 0; k < run; ++k) to[done + k] = from[k * stride];
    done += run;
  }
}

// Saves `count` numbers of the gradient from the update that will take their place. An update is what the step makes of
// a parameter of -0, to which all else can be added exactly.
template <class L>
FLATSTEP_FN void begin_update(const Segment& segment, int64_t first, int count, typename L::Grad::Storage* to) {
  const auto* from = static_cast<const typename L::Grad::Storage*>(segment.grad) + first;
  for (int k = 0; k < count; ++k) to[k] = from[k];
  const typename L::Param::Tile update(segment.param, first);
  for (int k = 0; k < count; ++k) update.store(k, typename L::Compute(-0.0));
}

template <class R, class L, class Slots = std::make_integer_sequence<int, slot_count<R>>>
struct Streams;

// The streams of rule R on layout L, from one element on.
template <class R, class L, int... slot>
struct Streams<R, L, std::integer_sequence<int, slot...>> {
  using Param = typename L::Param;
  using Grad = typename L::Grad;
  template <int index>
  using State = typename L::template Slot<R::slots[index].role>;

  static constexpr bool all_alike = std::is_same_v<Param, Grad> && (std::is_same_v<Param, State<slot>> && ...);
  template <class Format>
  using Block = BlockOf<Format, all_alike>;
  static constexpr int vectors = Block<Param>::vectors;
  static constexpr int block_size = Block<Param>::V::size * vectors;

  char* param;
  const char* grad;
  char* state[slot_count<R>];

  // Of blocks, so many that `count` elements are among theirs.
  template <class Coefficients>
  FLATSTEP_FN void update(const Coefficients& c, int count) const {
    using V = typename Block<Param>::V;
    for (int k = 0; k < count; k += block_size) {
      V p[vectors], g[vectors], s[slot_count<R>][vectors];
      Block<Param>::load(at<Param>(param, k), p);
      Block<Grad>::load(at<Grad>(grad, k), g);
      (Block<State<slot>>::load(at<State<slot>>(state[slot], k), s[slot]), ...);
      for (int v = 0; v < vectors; ++v) {
        V one[] = {s[slot][v]...};
        R::update(p[v], g[v], one, c);
        ((s[slot][v] = one[slot]), ...);
      }
      Block<Param>::store(at<Param>(param, k), p);
      (Block<State<slot>>::store(at<State<slot>>(state[slot], k), s[slot]), ...);
    }
  }

  template <class Format, class Char>
  static FLATSTEP_FN Char* at(Char* stream, int64_t element) {
    return stream + element * int64_t(sizeof(typename Format::Storage));
  }
};

// The elements first <= i < last of one segment, counted from the segment's start.
template <Rule R, class L>
FLATSTEP_FN void sweep_segment(const Segment& segment, const typename R::template Coefficients<typename L::Compute>& c,
                               int64_t first, int64_t last) {
  // Tiles begin where the parameter begins a cache line. State begins at the same place in a line
  // (NumpyParams::state_layout), and so do most gradients. Then no vector lies in two lines.
  using ParamStorage = typename L::Param::Storage;
  const int64_t phase = int64_t(reinterpret_cast<uintptr_t>(segment.param) % cache_line / sizeof(ParamStorage));
  auto without_decay = c;
  without_decay.gradient.weight_decay = without_decay.descent.weight_decay = 0;
  const bool decays = c.gradient.weight_decay != 0 || c.descent.weight_decay != 0;
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    using S = Streams<R, L>;
    int count = 0;
    for (int64_t i = first; i < last; i += count) {
      count = tile_size - int((i + phase) % tile_size);
      if (last - i < count) count = int(last - i);
      if (i + prefetch_ahead < segment.count) {
        prefetch<typename L::Param>(segment.param, i + prefetch_ahead, true);
        if (!segment.walk) prefetch<typename L::Grad>(segment.grad, i + prefetch_ahead, false);
        (prefetch<typename L::template Slot<R::slots[I].role>>(segment.state[I], i + prefetch_ahead, true), ...);
      }
      const bool is_rest = count < S::block_size;
      if (!is_rest) count -= count % S::block_size;
      alignas(cache_line) typename L::Grad::Storage gathered[tile_size];
      S streams = {S::template at<typename L::Param>(static_cast<char*>(segment.param), i),
                   S::template at<typename L::Grad>(static_cast<const char*>(segment.grad), i),
                   {S::template at<typename S::template State<I>>(static_cast<char*>(segment.state[I]), i)...}};
      if (segment.walk) {
        gather(segment.grad, *segment.walk, i, count, gathered);
        streams.grad = reinterpret_cast<char*>(gathered);
      } else if (segment.makes_update) {
        begin_update<L>(segment, i, count, gathered);
        streams.grad = reinterpret_cast<char*>(gathered);
      }
      struct Rest {
        typename L::Param::Storage param[S::block_size];
        typename L::Grad::Storage grad[S::block_size];
        char state[slot_count<R>][S::block_size * 8];
      } rest;
      S target = streams;
      if (is_rest) {
        rest = Rest{};
        __builtin_memcpy(rest.param, streams.param, count * sizeof rest.param[0]);
        __builtin_memcpy(rest.grad, streams.grad, count * sizeof rest.grad[0]);
        (__builtin_memcpy(rest.state[I], streams.state[I], count * sizeof(typename S::template State<I>::Storage)),
         ...);
        target = {reinterpret_cast<char*>(rest.param), reinterpret_cast<char*>(rest.grad), {rest.state[I]...}};
      }
      if (decays) {
        target.update(c, count);
      } else {
        target.update(without_decay, count);
      }
      if (is_rest) {
        __builtin_memcpy(streams.param, rest.param, count * sizeof rest.param[0]);
        (__builtin_memcpy(streams.state[I], rest.state[I], count * sizeof(typename S::template State<I>::Storage)),
         ...);
      }
    }
  }(std::make_integer_sequence<int, slot_count<R>>());
}

// The segment that holds an element of the call.
FLATSTEP_FN int64_t find_segment(const Call& call, int64_t element) {
  int64_t low = 0, high = call.segment_count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (call.segments[middle].first <= element ? low : high) = middle;
  }
  return low;
}

// The Kernel of rule R on layout L.
template <Rule R, class L>
void sweep(const Call& call, int64_t first, int64_t last) noexcept {
  using T = typename L::Compute;
  while (first < last) {
    // A run of segments that share their scalars, and so their coefficients.
    int64_t at = find_segment(call, first);
    const int64_t scalars = call.segments[at].scalars;
    const auto coefficients = R::template prepare<T>(call.scalars[scalars]);
    for (; first < last && call.segments[at].scalars == scalars; ++at) {
      const Segment& segment = call.segments[at];
      const int64_t end = segment.first + segment.count < last ? segment.first + segment.count : last;
      sweep_segment<R, L>(segment, coefficients, first - segment.first, end - segment.first);
      first = end;
    }
  }
}

// Null where the rule does not fit the layout.
template <class R, class L>
constexpr Kernel kernel() {
  if constexpr (fits<R, L>) {
    return &sweep<R, L>;
  } else {
    return nullptr;
  }
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
