// Lets helpers in to a piece of work while it lasts, and waits for those inside once it is done. Used by whoever lends
// threads to a step.
#pragma once

#include <atomic>

namespace flatstep {

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

// Nobody waits for a helper that has not begun: one that comes late finds the gate closed and goes away.
class Gate {
 public:
  void open() { inside_.store(0, std::memory_order_release); }

  bool enter() {
    int inside = inside_.load(std::memory_order_acquire);
    while (inside >= 0) {
      if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  void leave() {
    if (inside_.fetch_sub(1, std::memory_order_release) == closed + 1) inside_.notify_one();
  }

  void close_and_wait() {
    int inside = inside_.fetch_add(closed, std::memory_order_acq_rel) + closed;
    while (inside != closed) inside = wait_while_equal(inside_, inside);
  }

 private:
  static constexpr int closed = -(1 << 30);

  std::atomic<int> inside_{closed};  // helpers at work; plus `closed` while no more may begin
};

}  // namespace flatstep
