// A step's work, cut into parts that threads take up; whose threads those are is not its business. Used by parallel.cpp
// and by front ends that bring threads of their own.
#pragma once

#include <atomic>
#include <memory>

#include "call.h"

namespace flatstep {

// One kernel and all that it has to do in a step.
struct Job {
  int layout;     // as in catalog.h
  Kernel kernel;  // null where no processor is to carry it out: see device.h
  const Call* call;
  int64_t elements;
};

class Work {
 public:
  Work(const Job* jobs, int64_t count);

  // Cuts the work into parts, at most one for each of so many threads: small work is one part. Returns how many.
  int cut(int most_threads);

  // What one thread does, its own part first; alone, it would do everything. In the floating-point mode of kernels.
  void carry_out(int thread);

 private:
  // A thread's part of a step, from which others take chunks too once they are done with their own: a processor that is
  // busy with something else then holds up the step by one chunk at most. Each part is the same from step to step, so
  // that its memory stays near its processor.
  struct alignas(cache_line) Part {
    std::atomic<int64_t> next;
    int64_t last;
  };

  void run_range(int64_t first, int64_t last) const;

  const Job* jobs_;
  int64_t job_count_;
  int64_t elements_ = 0;
  std::unique_ptr<Part[]> parts_;  // null while there is one
  int part_count_ = 1;
};

}  // namespace flatstep
