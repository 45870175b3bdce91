// A device that the host plays: kernels carried out thread by thread, late, in the order of a stream, so that whoever
// reuses memory too early is found out. For tests only.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "kernels.h"
#include "runtime.h"

namespace flatstep::testing {

class StandIn : public device::Runtime {
 public:
  StandIn();
  ~StandIn() override;

  static const device::LayOut lay_out;
  static const device::Kernels kernels;  // they run on the stand-in that is there; there is one at a time

  // What a program does with a device.
  void synchronize();                      // the stream's work is done
  void run(std::function<void()> kernel);  // one of the program's own
  void begin_capture();                    // launches go into a new graph from here on
  void end_capture() { is_captured_ = false; }
  void replay();  // in the stream

  // The call with this number from now on that may fail does; -1: none.
  int fails_after = -1;
  bool fails_launches = false, fails_loads = false;
  bool is_lazy = true;  // nothing is done before somebody waits, or asks in vain a few times

  // What it was asked for.
  int loads = 0, launches = 0, copies = 0, allocations = 0, waits = 0;

  void load();
  void enqueue_launch(std::function<void()> kernel);

  int current_device() override { return device_; }
  void set_device(int index) override { device_ = index; }
  bool is_capturing(void*) override { return is_captured_; }
  void* allocate(size_t bytes, void* stream) override;
  void release(void* memory, void* stream) noexcept override;
  void* allocate_lasting(size_t bytes) override;
  void release_lasting(void* memory) noexcept override;
  void* allocate_pinned(size_t bytes) override;
  void release_pinned(void* memory) noexcept override;
  void copy(void* to, const void* from, size_t bytes, void* stream) override;
  void copy_and_wait(void* to, const void* from, size_t bytes, void* stream) override;
  void clear(void* memory, size_t bytes, void* stream) override;
  void copy_now(void* to, const void* from, size_t bytes) override;
  void* make_event() override;
  void record(void* event, void* stream) override;
  void wait_in_stream(void* stream, void* event) override;
  bool is_past(void* event) override;
  void wait(void* event) noexcept override;
  void release_event(void* event) noexcept override;
  std::string launch_failure() override;

 private:
  void may_fail(const char* what);
  void do_one();

  int device_ = 0;
  bool is_captured_ = false, launch_failed_ = false;
  std::deque<std::function<void()>> stream_;
  std::vector<std::function<void()>> graph_;
};

}  // namespace flatstep::testing
