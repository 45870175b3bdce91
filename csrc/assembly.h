// A step on its way to the kernels: segments by layout, the walks of strided gradients, the jobs. For checks, which
// know what may go in.
#pragma once

#include <memory>
#include <vector>

#include "geometry.h"
#include "targets.h"
#include "work.h"

namespace flatstep {

// Kept from step to step, so that steps allocate nothing.
class Assembly {
 public:
  Assembly();
  Assembly(const Assembly&) = delete;
  Assembly& operator=(const Assembly&) = delete;

  void clear();

  // A tensor that is not empty; its place among the elements of its layout (`first`) is found here.
  void add(int layout, Segment segment);

  // How to visit a gradient whose parameter has these strides in bytes, and these axes outermost in memory first; null
  // where both lie alike.
  const Walk* walk_over(const std::vector<int>& order, const int64_t* strides, const Array& grad);

  // The work of what was added. Valid until `clear`.
  const std::vector<Job>& jobs(int rule, const std::vector<Scalars>& scalars, const Target& target);

 private:
  // A Walk and what it points to.
  struct OwnedWalk {
    std::vector<int64_t> shape, strides;
    Walk walk;
  };

  std::vector<std::vector<Segment>> segments_;  // by layout
  std::vector<Call> calls_;
  std::vector<Job> jobs_;
  std::vector<std::unique_ptr<OwnedWalk>> walks_;
};

}  // namespace flatstep
