// A piece of work, its chunks, and the threads that run them. The only place that knows fork. See work.h.
#include "work.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "openmp.h"

namespace flatstep {

namespace {

constexpr int64_t chunk = 16384;  // elements that a thread takes at a time: whole tiles, some tens of microseconds

// The jobs of a step, cut into a part for each thread.
class Work {
 public:
  // Cuts the work into at most `most_threads` parts, of `worth_a_thread` elements at least. Small work is one part.
  Work(std::span<const Job> jobs, int most_threads, int64_t worth_a_thread) : jobs_(jobs) {
    for (const Job& job : jobs) elements_ += job.elements;
    whole_.last = elements_;
    threads_ = int(std::clamp<int64_t>(elements_ / worth_a_thread, 1, most_threads));
    if (threads_ == 1) return;
    parts_.reset(new Part[size_t(threads_)]);
    const int64_t chunks = (elements_ + chunk - 1) / chunk;
    for (int i = 0; i < threads_; ++i) {
      parts_[size_t(i)].next = chunks * i / threads_ * chunk;
      parts_[size_t(i)].last = std::min(chunks * (i + 1) / threads_ * chunk, elements_);
    }
  }

  int threads() const { return threads_; }

  // A thread carries out its own part, then helps with the others. One thread alone carries out everything.
  void carry_out(int thread) {
    const DefaultFloatingPoint mode;
    const int64_t at_a_time = parts_ ? chunk : elements_;
    for (int offset = 0; offset < threads_; ++offset) {
      Part& part = parts_ ? parts_[size_t((thread + offset) % threads_)] : whole_;
      for (int64_t first; (first = part.next.fetch_add(at_a_time, std::memory_order_relaxed)) < part.last;) {
        const int64_t last = std::min(first + at_a_time, part.last);
        int64_t start = 0;  // of the job, where all are laid end to end
        for (const Job& job : jobs_) {
          const int64_t from = std::max(first - start, int64_t{0}), to = std::min(last - start, job.elements);
          if (from < to) job.kernel(*job.call, from, to);
          start += job.elements;
        }
      }
    }
  }

 private:
  // A thread's part, from which others take chunks too once they are done with their own: a processor that is busy with
  // something else then holds up the step by one chunk at most. Each part is the same from step to step, so that its
  // memory stays near its processor.
  struct alignas(cache_line) Part {
    std::atomic<int64_t> next{0};
    int64_t last = 0;
  };

  const std::span<const Job> jobs_;
  int64_t elements_ = 0;
  Part whole_;
  std::unique_ptr<Part[]> parts_;  // null where one thread carries out the whole
  int threads_ = 1;
};

// Waits until an atomic's value is not `old`: awake for some tens of microseconds, for what comes at once, then asleep.
template <class T>
T wait_while_equal(const std::atomic<T>& value, T old) {
  constexpr int spins = 500;
  for (int i = 0; i < spins; ++i) {
    if (const T now = value.load(std::memory_order_acquire); now != old) return now;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// Threads that help with a piece of work while it lasts. No step waits for a helper that has not begun: one that comes
// late finds nothing to do, and touches nothing of the work.
class Helpers {
 public:
  // Carries out the work on this thread, as its number 0, and on the helpers that `call`, which throws nothing, calls.
  // Returns when all is done and the helpers that began have left.
  template <class Call>
  void run(Work& work, const Call& call) {
    work_ = &work;
    inside_.store(0, std::memory_order_release);
    call();
    work.carry_out(0);
    int inside = inside_.fetch_add(closed, std::memory_order_acq_rel) + closed;
    while (inside != closed) inside = wait_while_equal(inside_, inside);
  }

  void help(int thread) {
    int inside = inside_.load(std::memory_order_acquire);
    do {
      if (inside < 0) return;
    } while (!inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire));
    work_->carry_out(thread);
    if (inside_.fetch_sub(1, std::memory_order_release) == closed + 1) inside_.notify_one();
  }

 private:
  static constexpr int closed = -(1 << 30);

  std::atomic<int> inside_{closed};  // helpers at work; plus `closed` while no more may begin
  Work* work_ = nullptr;
};

// Our own threads, which sleep between steps. Where they are busy with another caller's work, the caller works alone.
class OwnThreads {
 public:
  void run(Work& work) {
    const std::unique_lock lock(in_use_, std::try_to_lock);
    if (!lock) return work.carry_out(0);
    grow(size_t(work.threads() - 1));
    helpers_.run(work, [&] {
      for (size_t i = 0; i < size_t(work.threads() - 1) && i < threads_.size(); ++i) {
        threads_[i]->calls.fetch_add(1, std::memory_order_release);
        threads_[i]->calls.notify_one();
      }
    });
  }

 private:
  struct Thread {
    alignas(cache_line) std::atomic<uint32_t> calls{0};
  };

  // Starts threads until there are that many, or as many as the system grants. They get no signals: those are for the
  // threads that the program knows of.
  void grow(size_t count) {
    if (threads_.size() >= count) return;
    sigset_t all, callers;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &callers);
    try {
      threads_.reserve(count);
      while (threads_.size() < count) {
        auto thread = std::make_unique<Thread>();
        std::thread([this, &calls = thread->calls, number = int(threads_.size()) + 1] {
          for (uint32_t seen = 0;;) {
            seen = wait_while_equal(calls, seen);
            helpers_.help(number);
          }
        }).detach();
        threads_.push_back(std::move(thread));
      }
    } catch (const std::exception&) {  // those that there are do it all
    }
    pthread_sigmask(SIG_SETMASK, &callers, nullptr);
  }

  std::mutex in_use_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Helpers helpers_;
};

std::atomic<int> chosen{0};  // 0: as many as OpenMP would use

std::atomic<OwnThreads*> own_threads{nullptr};  // made once needed, never destroyed: its threads sleep in it

// Threads do not survive a fork. The child gets its own when it needs them; it would wait without end for those that
// OpenMP still believes in.
std::atomic<int> forked{0};
[[maybe_unused]] const int watching_fork = pthread_atfork(nullptr, nullptr, [] {
  ++forked;
  own_threads = nullptr;
});

void run_on_openmp(const OpenMP& openmp, Work& work) {
  struct Region {
    Work& work;
    const OpenMP& openmp;
  } region{work, openmp};
  openmp.parallel(
      [](void* argument) {
        const Region& region = *static_cast<Region*>(argument);
        region.work.carry_out(region.openmp.thread_num());
      },
      &region, unsigned(work.threads()), 0);
}

OwnThreads& get_own_threads() {
  OwnThreads* existing = own_threads;
  if (existing) return *existing;
  auto made = std::make_unique<OwnThreads>();
  return own_threads.compare_exchange_strong(existing, made.get()) ? *made.release() : *existing;
}

}  // namespace

void run(std::span<const Job> jobs, Team team, int default_threads) {
  const OpenMP* const openmp = team == Team::openmp && forked == 0 ? loaded_openmp() : nullptr;
  const int most_threads = default_threads > 0 && chosen == 0 ? default_threads : num_threads();
  Work work(jobs, most_threads, elements_worth_a_thread(openmp ? Team::openmp : Team::own));
  if (work.threads() == 1) return work.carry_out(0);
  if (openmp) return run_on_openmp(*openmp, work);
  get_own_threads().run(work);
}

void run_on(std::span<const Job> jobs, int pool_threads, const Schedule& schedule) {
  const int most_threads = std::max(1, chosen > 0 ? std::min(int(chosen), pool_threads) : pool_threads);
  Work work(jobs, most_threads, elements_worth_a_thread(Team::openmp));
  if (work.threads() == 1) return work.carry_out(0);
  const auto helpers = std::make_shared<Helpers>();
  helpers->run(work, [&] {
    try {
      for (int thread = 1; thread < work.threads(); ++thread) schedule([helpers, thread] { helpers->help(thread); });
    } catch (...) {  // those that were called, and this thread, do it all
    }
  });
}

bool has_openmp() { return loaded_openmp() != nullptr; }

int num_threads() {
  const int threads = chosen;
  return threads > 0 ? threads : openmp_num_threads();
}

void set_num_threads(int n) { chosen = n; }

int forks() { return forked; }

}  // namespace flatstep
