// What a step does to a tile after its update: an average of the parameter, and zeros where the gradient was read. By
// format and not by rule. Included by cpu/target.cpp alone.
#pragma once

#include "../averaging.h"
#include "blocks.h"
#include "gather.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class Param, class Average>
void update_average(const Averaging<typename Param::Compute>& averaging, const Segment& segment, int64_t first,
                    int count) {
  using T = typename Param::Compute;
  using V = Vector<T>;
  const auto* const param = static_cast<const typename Param::Storage*>(segment.param) + first;
  auto* const average = static_cast<typename Average::Storage*>(segment.average) + first;
  int k = 0;
  for (; k + V::size <= count; k += V::size) {
    V p[1], a[1];
    InOrder<Param>::load(param + k, p);
    InOrder<Average>::load(average + k, a);
    a[0] = averaging(a[0], p[0]);
    InOrder<Average>::store(average + k, a);
  }
  const typename Param::Tile params(segment.param, first);
  const typename Average::Tile averages(segment.average, first);
  for (; k < count; ++k) averages.store(k, averaging(averages.load(k), params.load(k)));
}

// As `gather` reads them.
template <class Storage>
void scatter_zeros(void* grad, const Walk& walk, int64_t first, int count) {
  for_each_run(walk, first, count, [&](int, int64_t offset, int64_t stride, int run) {
    auto* const to = static_cast<Storage*>(grad) + offset;
    for (int k = 0; k < run; ++k) to[k * stride] = 0;
  });
}

inline void zero_gradient(const Segment& segment, int bytes, int64_t first, int count) {
  void* const grad = const_cast<void*>(segment.grad);  // writable, which Step has checked
  if (!segment.walk) {
    __builtin_memset(static_cast<char*>(grad) + first * bytes, 0, size_t(count) * size_t(bytes));
  } else if (bytes == 2) {
    scatter_zeros<uint16_t>(grad, *segment.walk, first, count);
  } else if (bytes == 4) {
    scatter_zeros<uint32_t>(grad, *segment.walk, first, count);
  } else {
    scatter_zeros<uint64_t>(grad, *segment.walk, first, count);
  }
}

template <class Param, class Average>
void finish_tile(const Tail& tail, const Segment& segment, int64_t updates, int64_t first, int count) noexcept {
  if (segment.average) update_average<Param, Average>({tail, updates}, segment, first, count);
  if (tail.zeroed_bytes) zero_gradient(segment, tail.zeroed_bytes, first, count);
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
