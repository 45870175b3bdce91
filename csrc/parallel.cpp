// OpenMP, fork and the floating-point mode. See parallel.h.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace flatstep {

namespace {

constexpr int64_t elements_worth_a_thread = 16384;
constexpr int64_t grain = 64;  // ranges start at multiples of it, so that tiles stay whole

std::atomic<int> chosen_threads{0};  // 0: whatever OpenMP would use

// libgomp's threads do not survive a fork, and waiting for them hangs the child: it works alone.
std::atomic<bool> forked{false};
[[maybe_unused]] const int watching_fork = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// Kernels promise the same bits whatever rounding or flush-to-zero mode the caller's thread happens to be in.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&callers_); }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
  std::fenv_t callers_;
};

// The elements first <= i < last of the jobs laid end to end.
void run_range(const Job* jobs, int64_t count, int64_t first, int64_t last) {
  const DefaultFloatingPoint mode;
  int64_t start = 0;
  for (const Job* job = jobs; job != jobs + count; start += job->elements, ++job) {
    const int64_t from = std::max(first - start, int64_t{0}), to = std::min(last - start, job->elements);
    if (from < to) job->kernel(*job->call, from, to);
  }
}

// Where the part number `part` of `parts` begins.
[[maybe_unused]] int64_t part_begin(int64_t total, int part, int parts) {
  if (part == parts) return total;
  const int64_t grains = total / grain;
  return (grains / parts * part + std::min<int64_t>(grains % parts, part)) * grain;
}

}  // namespace

void run(const Job* jobs, int64_t count) {
  int64_t total = 0;
  for (const Job* job = jobs; job != jobs + count; ++job) total += job->elements;
#ifdef _OPENMP
  const int threads = int(std::clamp<int64_t>(total / elements_worth_a_thread, 1, num_threads()));
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int part = omp_get_thread_num(), parts = omp_get_num_threads();
      run_range(jobs, count, part_begin(total, part, parts), part_begin(total, part + 1, parts));
    }
    return;
  }
#endif
  run_range(jobs, count, 0, total);
}

bool has_threads() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

int num_threads() {
  if (!has_threads() || forked) return 1;
  if (const int chosen = chosen_threads) return chosen;
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

bool set_num_threads(int n) {
  if (n > 1 && !has_threads()) return false;
  chosen_threads = n;
  return true;
}

}  // namespace flatstep
