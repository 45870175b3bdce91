// Where elements lie: the segment that holds one, and numbers of a strided gradient one after the other. Included by
// cpu/sweep.h and cpu/norm.h.
#pragma once

#include "../call.h"
#include "../host_device.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// The segment that holds an element of the call.
FLATSTEP_FN int64_t find_segment(const Call& call, int64_t element) {
  int64_t low = 0, high = call.segment_count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (call.segments[middle].first <= element ? low : high) = middle;
  }
  return low;
}

// Calls f(k, offset, stride, run) for runs along the innermost axis that hold `count` elements of a strided gradient,
// from the element `first` on in the parameter's order: of the elements k, k + 1, ... the first lies at the offset.
template <class F>
FLATSTEP_FN void for_each_run(const Walk& walk, int64_t first, int count, const F& f) {
  const int inner = walk.axes - 1;
  for (int done = 0; done < count;) {
    int64_t rest = (first + done) / walk.shape[inner];
    const int64_t along = (first + done) % walk.shape[inner], stride = walk.strides[inner];
    int64_t offset = along * stride;
    for (int axis = inner - 1; axis >= 0; --axis) {
      offset += rest % walk.shape[axis] * walk.strides[axis];
      rest /= walk.shape[axis];
    }
    const int64_t left = walk.shape[inner] - along;
    const int run = left < count - done ? int(left) : count - done;
    f(done, offset, stride, run);
    done += run;
  }
}

// Copies these elements.
template <class Storage>
__attribute__((noinline)) void gather(const void* grad, const Walk& walk, int64_t first, int count, Storage* to) {
  for_each_run(walk, first, count, [&](int at, int64_t offset, int64_t stride, int run) {
    const auto* from = static_cast<const Storage*>(grad) + offset;
    for (int k = 0; k < run; ++k) to[at + k] = from[k * stride];
  });
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
