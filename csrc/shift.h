// Carries out a step's work on threads that somebody lends, the caller's among them. Used by front ends whose framework
// has a pool of threads.
#pragma once

#include <memory>

#include "gate.h"
#include "work.h"

namespace flatstep {

// Work that outlives its step only as something that nobody may enter any more.
struct Shift {
  Work work;
  Gate gate;

  Shift(const Job* jobs, int64_t count) : work(jobs, count) {}
};

// Returns once all is done, and then no thread reads the jobs any more. `schedule` takes a function without arguments
// and calls it on another thread, soon or late: a thread that is busy costs time but never holds up the step.
template <class Schedule>
void carry_out(const Job* jobs, int64_t count, int most_threads, const Schedule& schedule) {
  const auto shift = std::make_shared<Shift>(jobs, count);
  const int threads = shift->work.cut(most_threads);
  if (threads == 1) return shift->work.carry_out(0);
  shift->gate.open();
  for (int thread = 1; thread < threads; ++thread) {
    try {
      schedule([shift, thread] {
        if (!shift->gate.enter()) return;
        shift->work.carry_out(thread);
        shift->gate.leave();
      });
    } catch (...) {
      break;  // those that came, and this one, do it all
    }
  }
  shift->work.carry_out(0);
  shift->gate.close_and_wait();
}

}  // namespace flatstep
