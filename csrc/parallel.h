// Who runs a Kernel over its elements on the CPU. The only place that knows OpenMP and fork.
#pragma once

#include "call.h"

namespace flatstep {

// One kernel and all that it has to do in a step.
struct Job {
  Kernel kernel;
  const Call* call;
  int64_t elements;
};

// Carries out all jobs in one parallel region, split by elements; small totals run on the calling thread.
void run(const Job* jobs, int64_t count);

bool has_threads();  // whether this build can use more than one
int num_threads();   // how many a large step uses
// n >= 1; false where this build cannot use n.
bool set_num_threads(int n);

}  // namespace flatstep
