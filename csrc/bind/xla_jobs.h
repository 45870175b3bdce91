// A step that XLA hands over, as jobs for the processor, which reads its numbers. For xla.cpp only.
#pragma once

#include <vector>

#include "assembly.h"
#include "xla_step.h"

namespace flatstep {

class XlaJobs {
 public:
  XlaJobs(const XlaStep& step, const Target& target);
  XlaJobs(const XlaJobs&) = delete;
  XlaJobs& operator=(const XlaJobs&) = delete;

  const std::vector<Job>& jobs() const { return *jobs_; }  // as long as this lives

 private:
  void read_numbers(const XlaStep& step);
  void add(const XlaStep::Leaf& leaf, bool makes_update);

  std::vector<Scalars> scalars_;  // one an entry of the batch
  Assembly assembly_;
  const std::vector<Job>* jobs_;
};

}  // namespace flatstep
