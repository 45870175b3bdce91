// Threads, fork and the floating-point mode. See parallel.h.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "thread_pool.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace flatstep {

namespace {

std::atomic<int> chosen{0};  // 0: as many as OpenMP would use, or as there are processors

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

}  // namespace

void run(const Job* jobs, int64_t count, [[maybe_unused]] Team team, int default_threads) {
  Work work(jobs, count);
  const int threads = work.cut(default_threads > 0 && chosen == 0 ? default_threads : num_threads());
  if (threads == 1) return work.carry_out(0);
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
  if (const int threads = chosen) return threads;
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return std::max(1, int(std::thread::hardware_concurrency()));
#endif
}

int chosen_threads() { return chosen; }

void set_num_threads(int n) { chosen = n; }

int forks() { return forked; }

}  // namespace flatstep
