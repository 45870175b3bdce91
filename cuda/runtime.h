// What a queue needs of a device: memory, copies, events, graph capture. One interface, so that tests can stand in for
// the device. Everything that fails throws std::runtime_error and says what failed and why; what fails for want of
// memory where something is made throws OutOfDeviceMemory (csrc/device.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace flatstep::device {

class Runtime {
 public:
  virtual ~Runtime() = default;

  // Makes a device current for this thread. Returns what was current, for `restore`; null where nothing was, and then
  // nothing is again. No device gets a context by this but the one that is asked for.
  virtual void* make_current(int index) = 0;
  virtual void restore(void* before) noexcept = 0;

  virtual bool is_capturing(void* stream) = 0;
  virtual uint64_t stream_id(void* stream) = 0;  // that no other stream has, not even a later one with its handle

  // Device memory in the order of a stream: what the stream was given before `release` may still use it. Without a
  // stream to say so, as with `release_lasting`, it is no longer in use.
  virtual void* allocate(size_t bytes, void* stream) = 0;
  virtual void release(void* memory, void* stream) noexcept = 0;

  virtual void release_lasting(void* memory) noexcept = 0;

  // Device memory that belongs to the graph into which a stream is capturing, and to all that is made of the graph.
  // Once these are gone and their last replay is done, `release_dropped` releases it, where its device is current.
  virtual void* allocate_for_graph(size_t bytes, void* stream) = 0;
  virtual void release_dropped() noexcept = 0;

  // Host memory from which copies need not wait.
  virtual void* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(void* memory) noexcept = 0;

  virtual void copy(void* to, const void* from_pinned, size_t bytes, void* stream) = 0;
  // Between the host and the device, in the order of a stream; returns when it is done.
  virtual void copy_and_wait(void* to, const void* from, size_t bytes, void* stream) = 0;
  virtual void clear(void* memory, size_t bytes, void* stream) = 0;     // to zero
  virtual void copy_now(void* to, const void* from, size_t bytes) = 0;  // beside every stream; returns when it is done

  virtual void* make_event() = 0;
  virtual void record(void* event, void* stream) = 0;
  virtual void wait_in_stream(void* stream, void* event) = 0;  // for its last recording; the host goes on
  virtual bool is_past(void* event) = 0;
  virtual void wait(void* event) noexcept = 0;
  virtual void release_event(void* event) noexcept = 0;

  virtual void load(void (*kernels)()) = 0;  // onto the current device, also while a stream is capturing

  struct Failure {
    std::string why;  // empty where there is none
    bool is_for_want_of_memory = false;
  };
  virtual Failure launch_failure() = 0;  // why the launch or load just made was refused
};

// Makes a device current, and what was before it again in the end.
class CurrentDevice {
 public:
  CurrentDevice(Runtime& runtime, int index) : runtime_(runtime), before_(runtime.make_current(index)) {}
  ~CurrentDevice() { runtime_.restore(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  Runtime& runtime_;
  void* const before_;
};

}  // namespace flatstep::device
