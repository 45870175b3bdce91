// A step's work, and who runs it: threads of our own, OpenMP's, or those of a pool that the caller has. For all who ask
// for a step.
#pragma once

#include <functional>
#include <span>

#include "call.h"

#if !defined(__x86_64__)
#include <cfenv>
#endif

namespace flatstep {

// One kernel and all that it has to do in a step.
struct Job {
  int layout;     // as in layouts.h
  Kernel kernel;  // null where no processor is to carry it out: see device.h
  const Call* call;
  int64_t elements;
};

// Whose threads carry out large steps. Our own sleep between steps. OpenMP's spin for milliseconds before they sleep,
// which is right beside torch, whose operations run on the same threads, and very wrong beside NumPy, whose matrix
// products leave spinning threads of another kind: then both fight for the processors, and a step of a tenth of a
// millisecond was seen to take 7.
enum class Team { own, openmp };

// Carries out all jobs in one parallel region, split by elements; small totals run on the calling thread.
// `default_threads` is how many to use where the user chose no number; 0: as many as num_threads() says.
void run(std::span<const Job> jobs, Team team, int default_threads = 0);

// The same on the calling thread and on a pool of `pool_threads` threads. `schedule` calls a function on a thread of
// the pool, now or later. A busy thread costs time but never holds up the step. No thread reads the jobs after the
// return.
using Schedule = std::function<void(std::function<void()>)>;
void run_on(std::span<const Job> jobs, int pool_threads, const Schedule& schedule);

// How many elements each thread of a step gets at least. A thread of our own sleeps, and that of a virtual machine
// takes 40 us and more to begin: the caller updates 100,000 elements in that time. OpenMP's and a pool's are mostly
// awake.
constexpr int64_t elements_worth_a_thread(Team team) { return team == Team::own ? 131'072 : 16'384; }

bool has_openmp();            // whether the process has loaded an OpenMP runtime; without one the team is our own
int num_threads();            // how many a large step uses
void set_num_threads(int n);  // n >= 1
int forks();                  // how often this process was forked since it loaded us

// The floating-point mode in which kernels run and numbers for them are read, for as long as this lives. Kernels
// promise the same bits in every rounding and flush-to-zero mode of the caller's thread.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

#if defined(__x86_64__)
  // <cfenv> also saves the x87 unit, where nothing is computed: a quarter of a microsecond, which a small step notices.
  DefaultFloatingPoint() { __builtin_ia32_ldmxcsr(to_nearest_all_masked); }
  ~DefaultFloatingPoint() { __builtin_ia32_ldmxcsr(callers_); }

 private:
  static constexpr unsigned to_nearest_all_masked = 0x1f80;

  unsigned callers_ = __builtin_ia32_stmxcsr();
#else
  DefaultFloatingPoint() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&callers_); }

 private:
  std::fenv_t callers_;
#endif
};

}  // namespace flatstep
