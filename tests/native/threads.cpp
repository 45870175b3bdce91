// Threads under stress: several callers at once, the number of threads changing under them, on either team and on a
// caller's pool. Results are those of one thread, and a thread sanitizer sees every hand-over.
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "model.h"
#include "work.h"

namespace flatstep::testing {

namespace {

// Runs f(0) .. f(n - 1) on threads of their own and passes on what one of them throws.
void at_once(int n, const std::function<void(int)>& f) {
  std::vector<std::exception_ptr> thrown(static_cast<size_t>(n));
  std::vector<std::thread> threads;
  for (int i = 0; i < n; ++i) {
    threads.emplace_back([&, i] {
      try {
        f(i);
      } catch (...) {
        thrown[size_t(i)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& each : thrown) {
    if (each) std::rethrow_exception(each);
  }
}

constexpr int tile = 64;  // a range that a thread is given begins and ends with a tile

// A kernel that counts how often it is given each tile. Not with atomics: each is counted by one thread, and read after
// the run.
void count_tiles(const Call& call, int64_t first, int64_t last) noexcept {
  for (int64_t i = first; i < last; i += tile) ++static_cast<int*>(call.segments->param)[i / tile];
}

// Every tile is worked on, once, when run() returns: with helpers that come late, more than there are processors, and
// callers who find our threads busy.
void own_threads_carry_out_all_work() {
  at_once(3, [](int caller) {
    Random random(uint64_t(caller) + 1);
    for (int round = 0; round < 3000; ++round) {
      std::vector<int> times(size_t(random.between(1, 6000)), 0);
      Segment segment{};
      segment.param = times.data();
      const Call call{&segment, 1, nullptr};
      const Job job{0, &count_tiles, &call, int64_t(times.size()) * tile};
      set_num_threads(int(random.between(1, 16)));
      run({&job, 1}, Team::own);
      for (const int each : times) check(each == 1, "each tile is worked on once");
    }
  });
}

// Steps of several optimizers at once equal the same steps on one thread.
void steps_equal_serial_ones(Team team) {
  constexpr int callers = 4, steps = 12;
  // More than several threads are worth, in uneven parts.
  const std::vector<int64_t> lengths = {100, 3 * elements_worth_a_thread(team) + 5'000, 1, 30'000};
  std::atomic<bool> done{false};
  std::thread meddler([&] {
    for (int n = 1; !done; n = n % 7 + 1) {
      set_num_threads(n);
      std::this_thread::yield();
    }
  });
  try {
    at_once(callers, [&](int caller) {
      const int rule = caller % int(rules().size()), layout = caller / 2 % int(layouts().size());
      const Target& target = *targets()[size_t(caller) % targets().size()];
      const auto shared = Model::make(rule, layout, lengths, uint64_t(caller) + 1);
      const auto alone = Model::make(rule, layout, lengths, uint64_t(caller) + 1);
      if (!shared) return;
      for (int step = 0; step < steps; ++step) {
        run(shared->jobs(target), team);
        for (const Job& job : alone->jobs(target)) job.kernel(*job.call, 0, job.elements);
        check(shared->images() == alone->images(), "any threads give the bits of one");
      }
    });
  } catch (...) {
    done = true;
    meddler.join();
    throw;
  }
  done = true;
  meddler.join();
}

void steps_on_openmp_equal_serial_ones() {
#ifndef __SANITIZE_THREAD__  // which cannot see how OpenMP's threads hand over
  for (const char* name : {"libgomp.so.1", "libomp.so.5", "libomp.dylib"}) {
    if (!has_openmp()) dlopen(name, RTLD_LAZY | RTLD_GLOBAL);
  }
  if (has_openmp()) steps_equal_serial_ones(Team::openmp);
#endif
}

// A pool whose few threads are slow to begin: most tasks are called when their step is over and its memory is gone.
class LatePool {
 public:
  explicit LatePool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i] { work(Random(uint64_t(i) + 1)); });
  }
  ~LatePool() {
    schedule(nullptr);
    for (std::thread& thread : threads_) thread.join();
  }

  void schedule(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    something_.notify_all();
  }

 private:
  void work(Random random) {
    while (true) {
      std::unique_lock lock(mutex_);
      something_.wait(lock, [&] { return !tasks_.empty(); });
      if (!tasks_.front()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      if (random.chance(50)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(300)));
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable something_;
  std::deque<std::function<void()>> tasks_;  // an empty one is the last
  std::vector<std::thread> threads_;
};

// Steps on a pool of the callers', of more callers than it has threads and now and then with none: what a task that
// comes late would touch is freed or overwritten by then.
void late_pools_leave_nothing_behind() {
  LatePool pool(2);
  at_once(4, [&](int caller) {
    Random random(uint64_t(caller) + 1);
    const Target& target = *targets()[size_t(caller) % targets().size()];
    for (int round = 0; round < 20; ++round) {
      const std::vector<int64_t> lengths = {random.between(1, 90'000), random.between(1, 90'000)};
      const int rule = caller % int(rules().size());
      const auto shared = Model::make(rule, 0, lengths, uint64_t(round) + 1);
      const auto alone = Model::make(rule, 0, lengths, uint64_t(round) + 1);
      if (!shared) return;
      const std::vector<Job>& jobs = shared->jobs(target);
      int willing = int(random.below(8));
      set_num_threads(int(random.between(1, 8)));
      run_on(jobs, 8, [&](std::function<void()> task) {
        if (willing-- == 0) throw std::bad_alloc();
        pool.schedule(std::move(task));
      });
      for (const Job& job : alone->jobs(target)) job.kernel(*job.call, 0, job.elements);
      check(shared->images() == alone->images(), "a pool's threads give the bits of one");
    }
  });
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts(
      {{"our own threads carry out all work", own_threads_carry_out_all_work},
       {"a pool whose threads come late finds nothing left behind", late_pools_leave_nothing_behind},
       {"steps on our own threads equal serial ones", [] { steps_equal_serial_ones(flatstep::Team::own); }},
       {"steps on OpenMP's threads equal serial ones, where there is a runtime", steps_on_openmp_equal_serial_ones}});
}
