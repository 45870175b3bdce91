// One pass over memory: vector by vector, load -> update -> store. Included by cpu/rule.cpp.in and cpu/target.cpp.
#pragma once

#include "../formats/format.h"
#include "../tail.h"
#include "gather.h"
#include "streams.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Copies `count` numbers of the gradient, and puts -0 where they were: the update will stand there, and is what the
// step makes of a parameter of -0, to which all else can be added exactly.
template <class L>
__attribute__((noinline)) void begin_update(const Segment& segment, int64_t first, int count,
                                            typename L::Grad::Storage* to) {
  const auto* from = static_cast<const typename L::Grad::Storage*>(segment.grad) + first;
  for (int k = 0; k < count; ++k) to[k] = from[k];
  const typename L::Param::Tile update(segment.param, first);
  for (int k = 0; k < count; ++k) update.store(k, typename L::Compute(-0.0));
}

// Elements of a segment, first <= i < last, counted from its start.
template <Rule R, class L>
struct SegmentSweep {
  using S = Streams<R, L>;
  using Coefficients = typename R::template Coefficients<typename L::Compute>;
  using GradStorage = typename L::Grad::Storage;
  static constexpr int tile = tile_size<typename L::Param::Storage>;

  const Call& call;
  const Segment& segment;
  const Coefficients& coefficients;

  FLATSTEP_FN void run(int64_t first, int64_t last) const {
    // Tiles begin where the parameter begins a cache line. State begins at the same place in a line (where
    // bind/numpy_step.cpp made it), and so do most gradients. Then no vector lies in two lines.
    const auto address = reinterpret_cast<uintptr_t>(segment.param);
    const int64_t phase = int64_t(address % cache_line / sizeof(typename L::Param::Storage));
    int count = 0;
    for (int64_t i = first; i < last; i += count) {
      count = tile - int((i + phase) % tile);
      if (last - i < count) count = int(last - i);
      S streams = S::at(segment, i);
      if (i + prefetch_ahead < segment.count) streams.prefetch_tile(prefetch_ahead, !segment.walk);
      if (count >= S::block_size) count -= count % S::block_size;
      alignas(cache_line) GradStorage gathered[tile];
      if (segment.walk) {
        gather(segment.grad, *segment.walk, i, count, gathered);
        streams.grad = reinterpret_cast<const char*>(gathered);
      } else if (segment.makes_update) {
        begin_update<L>(segment, i, count, gathered);
        streams.grad = reinterpret_cast<const char*>(gathered);
      }
      const bool is_partial = count < S::block_size;
      typename S::Partial partial;
      update_blocks(is_partial ? partial.load(streams, count) : streams, count);
      if (is_partial) partial.store(streams, count);
      if (call.tail) call.tail->finish(*call.tail, segment, call.scalars[segment.scalars].count, i, count);
    }
  }

  // One loop for each way of weight decay, so that none selects it: of the two terms at most one decays (terms.h).
  FLATSTEP_FN void update_blocks(const S& streams, int count) const {
    Coefficients c = coefficients;
    if (c.gradient.weight_decay != 0) {
      c.descent.weight_decay = 0;
      streams.update(c, count);
    } else if (c.descent.weight_decay != 0) {
      c.gradient.weight_decay = 0;
      streams.update(c, count);
    } else {
      c.gradient.weight_decay = c.descent.weight_decay = 0;
      streams.update(c, count);
    }
  }
};

// The Kernel of rule R on layout L. Its name has no concept in it: not all tools can read those of later compilers.
template <class R, class L>
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
      SegmentSweep<R, L>{call, segment, coefficients}.run(first - segment.first, end - segment.first);
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
