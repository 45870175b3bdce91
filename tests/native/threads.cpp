// Threads under stress: several callers at once, the number of threads changing under them, on either team and on lent
// threads. Results are those of one thread, and a thread sanitizer sees every hand-over.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "model.h"
#include "shift.h"
#include "thread_pool.h"

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

// A task as the pool asks for one: any one thread could do all of it.
struct Sum {
  std::atomic<int> next{0};
  std::vector<int> done;  // not atomic: each is written once, by whoever took it, and read after the run

  explicit Sum(int pieces) : done(size_t(pieces), 0) {}

  static void work(void* argument, int thread) {
    Sum& sum = *static_cast<Sum*>(argument);
    check(thread >= 0 && thread < 16, "thread numbers are those asked for");
    for (int piece = sum.next++; piece < int(sum.done.size()); piece = sum.next++) ++sum.done[size_t(piece)];
  }
};

// Every piece is done, once, when run() returns: with helpers that come late, more than there are processors, and
// callers who find the pool busy.
void pool_carries_out_all_work() {
  static ThreadPool& pool = *new ThreadPool;  // its threads never end, so it must not either
  at_once(3, [](int caller) {
    Random random(uint64_t(caller) + 1);
    for (int round = 0; round < 3000; ++round) {
      Sum sum(int(random.between(1, 300)));
      pool.run(int(random.between(1, 16)), &Sum::work, &sum);
      for (const int times : sum.done) check(times == 1, "each piece is done once");
    }
  });
}

// Steps of several optimizers at once equal the same steps on one thread.
void steps_equal_serial_ones(Team team) {
  constexpr int callers = 4, steps = 12;
  const std::vector<int64_t> lengths = {100, 70'000, 1, 30'000};  // more than one thread is worth, in uneven parts
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
        const std::vector<Job>& jobs = shared->jobs(target);
        run(jobs.data(), int64_t(jobs.size()), team);
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

// Steps on threads that are lent, of more callers than there are threads and now and then with none: what a task that
// comes late would touch is freed or overwritten by then.
void lent_threads_leave_nothing_behind() {
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
      carry_out(jobs.data(), int64_t(jobs.size()), int(random.between(1, 8)), [&](auto&& task) {
        if (willing-- == 0) throw std::bad_alloc();
        pool.schedule(std::forward<decltype(task)>(task));
      });
      for (const Job& job : alone->jobs(target)) job.kernel(*job.call, 0, job.elements);
      check(shared->images() == alone->images(), "lent threads give the bits of one");
    }
  });
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts(
      {{"the pool carries out all work", pool_carries_out_all_work},
       {"lent threads leave nothing behind", lent_threads_leave_nothing_behind},
       {"steps on our own threads equal serial ones", [] { steps_equal_serial_ones(flatstep::Team::own); }},
       {"steps on OpenMP's threads equal serial ones, where it is built in",
        [] { steps_equal_serial_ones(flatstep::Team::openmp); }}});
}
