// See thread_pool.h.
#include "thread_pool.h"

#include <signal.h>

#include <system_error>
#include <thread>

namespace flatstep {

namespace {

// Threads started meanwhile get no signals: those are for the threads that the program knows of.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &callers_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &callers_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t callers_;
};

}  // namespace

void ThreadPool::run(int threads, Task task, void* argument) {
  const std::unique_lock lock(in_use_, std::try_to_lock);
  if (!lock) return task(argument, 0);
  grow(threads - 1);
  task_ = task;
  argument_ = argument;
  gate_.open();
  for (int i = 0; i < threads - 1 && i < int(helpers_.size()); ++i) {
    helpers_[size_t(i)]->calls.fetch_add(1, std::memory_order_release);
    helpers_[size_t(i)]->calls.notify_one();
  }
  task(argument, 0);
  gate_.close_and_wait();
}

// Starts helpers until there are that many. Where the system grants no more threads, fewer must do.
void ThreadPool::grow(int helpers) {
  if (int(helpers_.size()) >= helpers) return;
  helpers_.reserve(size_t(helpers));
  const SignalsBlocked blocked;
  try {
    while (int(helpers_.size()) < helpers) {
      auto helper = std::make_unique<Helper>();
      std::thread([this, &helper = *helper, thread = int(helpers_.size()) + 1] { help(helper, thread); }).detach();
      helpers_.push_back(std::move(helper));
    }
  } catch (const std::system_error&) {
  }
}

void ThreadPool::help(Helper& helper, int thread) {
  for (uint32_t seen = 0;;) {
    seen = wait_while_equal(helper.calls, seen);
    if (!gate_.enter()) continue;
    task_(argument_, thread);
    gate_.leave();
  }
}

}  // namespace flatstep
