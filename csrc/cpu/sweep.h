// One pass over memory: tile by tile, load -> update -> store. Included by cpu/rule.cpp.in and cpu/target.cpp.
#pragma once

#include <utility>  // std::index_sequence, a type: it leaves no symbol behind

#include "../formats/format.h"
#include "opened.h"

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
void gather(const void* grad, const Walk& walk, int64_t first, int count, Storage* to) {
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

template <class R, class T, class Param, class Grad, class... Slots>
FLATSTEP_FN void update_tile(const typename R::template Coefficients<T>& coefficients, int count, Param&& param,
                             Grad&& grad, Slots&&... slots) {
  FLATSTEP_INDEPENDENT
  for (int k = 0; k < count; ++k) {
    T p = param.load(k);
    T state[] = {slots.load(k)...};
    R::update(p, grad.load(k), state, coefficients);
    param.store(k, p);
    const T* made = state;
    (slots.store(k, *made++), ...);
  }
  param.close(count);
  (slots.close(count), ...);
}

// The elements first <= i < last of one segment, counted from the segment's start.
template <Rule R, class L>
FLATSTEP_FN void sweep_segment(const Segment& segment, const typename R::template Coefficients<typename L::Compute>& c,
                               int64_t first, int64_t last) {
  // Tiles begin where the parameter begins a cache line. State begins at the same place in a line
  // (NumpyParams::state_layout), and so do most gradients. Then no vector lies in two lines.
  using ParamStorage = typename L::Param::Storage;
  const int64_t phase = int64_t(reinterpret_cast<uintptr_t>(segment.param) % cache_line / sizeof(ParamStorage));
  [&]<std::size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
    int count = 0;
    for (int64_t i = first; i < last; i += count) {
      count = tile_size - int((i + phase) % tile_size);
      if (last - i < count) count = int(last - i);
      if (i + prefetch_ahead < segment.count) {
        prefetch<typename L::Param>(segment.param, i + prefetch_ahead, true);
        if (!segment.walk) prefetch<typename L::Grad>(segment.grad, i + prefetch_ahead, false);
        (prefetch<typename L::template Slot<R::slots[I].role>>(segment.state[I], i + prefetch_ahead, true), ...);
      }
      typename L::Grad::Storage gathered[tile_size];
      void* grad = const_cast<void*>(segment.grad);
      int64_t grad_first = i;
      if (segment.walk) {
        gather(segment.grad, *segment.walk, i, count, gathered);
        grad = gathered;
        grad_first = 0;
      } else if (segment.makes_update) {
        begin_update<L>(segment, i, count, gathered);
        grad = gathered;
        grad_first = 0;
      }
      const auto update = [&](int n) __attribute__((always_inline)) {
        update_tile<R, typename L::Compute>(
            c, n, Opened<typename L::Param>(segment.param, i, n), Opened<typename L::Grad>(grad, grad_first, n),
            Opened<typename L::template Slot<R::slots[I].role>>(segment.state[I], i, n)...);
      };
      // The same loop twice: with a fixed count the compiler needs no remainder.
      if (count == tile_size) {
        update(tile_size);
      } else {
        update(count);
      }
    }
  }(std::make_index_sequence<slot_count<R>>());
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
