// Threads, fork and the floating-point mode. See parallel.h.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <memory>
#include <thread>

#include "thread_pool.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace flatstep {

namespace {

constexpr int64_t elements_worth_a_thread = 16384;
constexpr int64_t chunk = 16384;  // elements that a thread takes at a time: whole tiles, some tens of microseconds

std::atomic<int> chosen_threads{0};  // 0: as many as OpenMP would use, or as there are processors

std::atomic<ThreadPool*> own_threads{nullptr};  // made once needed, never destroyed: its threads sleep in it

// Threads do not survive a fork. The child gets a pool of its own when it needs one; what OpenMP still believes in it
// would wait for for ever.
std::atomic<int> forked{0};
[[maybe_unused]] const int watching_fork = pthread_atfork(nullptr, nullptr, [] {
  ++forked;
  own_threads = nullptr;
});

ThreadPool& pool() {
  ThreadPool* existing = own_threads;
  if (existing) return *existing;
  auto made = std::make_unique<ThreadPool>();
  return own_threads.compare_exchange_strong(existing, made.get()) ? *made.release() : *existing;
}

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
  int64_t start = 0;
  for (const Job* job = jobs; job != jobs + count; start += job->elements, ++job) {
    const int64_t from = std::max(first - start, int64_t{0}), to = std::min(last - start, job->elements);
    if (from < to) job->kernel(*job->call, from, to);
  }
}

// A thread's part of a step, from which others take chunks too once they are done with their own: a processor that is
// busy with something else then holds up the step by one chunk at most. Each part is the same from step to step, so
// that its memory stays near its processor.
struct alignas(64) Part {
  std::atomic<int64_t> next;
  int64_t last;
};

struct Work {
  const Job* jobs;
  int64_t job_count;
  std::unique_ptr<Part[]> parts;
  int part_count;

  Work(const Job* jobs, int64_t job_count, int64_t elements, int threads)
      : jobs(jobs), job_count(job_count), parts(new Part[size_t(threads)]), part_count(threads) {
    const int64_t chunks = (elements + chunk - 1) / chunk;
    for (int i = 0; i < threads; ++i) {
      parts[i].next = chunks * i / threads * chunk;
      parts[i].last = std::min(chunks * (i + 1) / threads * chunk, elements);
    }
  }

  // What one thread does; alone, it would do everything.
  void carry_out(int thread) {
    const DefaultFloatingPoint mode;
    for (int offset = 0; offset < part_count; ++offset) {
      Part& part = parts[(thread + offset) % part_count];
      while (true) {
        const int64_t first = part.next.fetch_add(chunk, std::memory_order_relaxed);
        if (first >= part.last) break;
        run_range(jobs, job_count, first, std::min(first + chunk, part.last));
      }
    }
  }
};

}  // namespace

void run(const Job* jobs, int64_t count, [[maybe_unused]] Team team, int default_threads) {
  int64_t total = 0;
  for (const Job* job = jobs; job != jobs + count; ++job) total += job->elements;
  const int most = default_threads > 0 && chosen_threads == 0 ? default_threads : num_threads();
  const int threads = int(std::clamp<int64_t>(total / elements_worth_a_thread, 1, most));
  if (threads == 1) {
    const DefaultFloatingPoint mode;
    return run_range(jobs, count, 0, total);
  }
  Work work(jobs, count, total, threads);
#ifdef _OPENMP
  if (team == Team::openmp && forked == 0) {
#pragma omp parallel num_threads(threads)
    work.carry_out(omp_get_thread_num());
    return;
  }
#endif
  pool().run(threads, [](void* argument, int thread) { static_cast<Work*>(argument)->carry_out(thread); }, &work);
}

bool has_openmp() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

int num_threads() {
  if (const int chosen = chosen_threads) return chosen;
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return std::max(1, int(std::thread::hardware_concurrency()));
#endif
}

void set_num_threads(int n) { chosen_threads = n; }

int forks() { return forked; }

}  // namespace flatstep
