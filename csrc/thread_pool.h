// Threads that sleep between tasks. Used by parallel.cpp alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "gate.h"

namespace flatstep {

// Runs a task on the calling thread and on helpers. Nobody waits for a helper that has not begun: a task must be such
// that any one thread can carry out all of it, so that a busy processor costs time but never holds up the caller.
class ThreadPool {
 public:
  using Task = void (*)(void* argument, int thread);

  // task(argument, i) on the caller's thread, i = 0, and on helpers, each with an i of its own: threads - 1 are called,
  // and one called earlier may come late. Returns when all that began have returned. Where the pool is busy with
  // another caller's task, the caller works alone.
  void run(int threads, Task task, void* argument);

 private:
  struct Helper {
    alignas(64) std::atomic<uint32_t> calls{0};
  };

  void grow(int helpers);
  void help(Helper& helper, int thread);

  std::mutex in_use_;
  std::vector<std::unique_ptr<Helper>> helpers_;
  Gate gate_;
  Task task_ = nullptr;
  void* argument_ = nullptr;
};

}  // namespace flatstep
