// Devices that the host plays: kernels carried out thread by thread, late, in the order of their stream, while any
// other stream may go on first, so that whoever reuses memory too early is found out, and so is whoever has another
// device current than he should. For tests only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "kernels.h"
#include "runtime.h"
#include "testing.h"

namespace flatstep::testing {

class StandIn : public device::Runtime {
 public:
  struct Graph {
    std::vector<std::function<void()>> kernels;
    std::vector<std::shared_ptr<char>> memory;  // that it has been given
  };

  StandIn();
  ~StandIn() override;

  static StandIn& active();  // there is one at a time
  static const device::LayOut lay_out;
  static const device::Kernels kernels;  // they run on the active one, and so do these
  static const device::SharedKernels shared_kernels;

  // What a program does with devices. It works on one stream at a time, at first on device 0's own: the handle of a
  // device's own stream is null.
  void* make_stream(int device);
  void destroy_stream(void* handle);  // its work goes on; the next stream that is made may get the handle
  void use(int device, void* handle = nullptr);
  void* stream() const { return now_->handle; }
  void run(std::function<void()> kernel);  // one of the program's own
  void go_on();                            // the stream alone, as far as it can
  void synchronize();                      // the work of all streams is done
  void begin_capture();                    // launches into the stream go into a new graph from here on
  Graph end_capture();
  void replay(const Graph& graph);

  // The call with this number from now on that may fail does, and so do those after it that it takes to make so many
  // failures; -1: none.
  int fails_after = -1, failures = 1;
  bool fails_launches = false, fails_loads = false;
  bool is_lazy = true;  // nothing is done before somebody waits, or asks in vain a few times

  // A thread that has used no device has none current, until it sets one, or does what needs one: then that is device
  // 0.
  int current_device() const { return current_.value_or(0); }
  bool has_current_device() const { return current_.has_value(); }
  void set_device(int index);
  const std::set<int>& used_devices() const { return used_; }  // those that have a context

  size_t bytes_in_use() const;  // of all devices

  // What it was asked for.
  int loads = 0, launches = 0, copies = 0, allocations = 0, pinned_allocations = 0, waits = 0, waits_in_stream = 0;
  void* last_stream = nullptr;  // that a launch went to

  // For kernels: `tables` is the device memory that the kernel begins with.
  void load_kernel();
  void enqueue_launch(void* stream, const std::vector<const void*>& tables, std::function<void()> kernel);

  void* make_current(int index) override;
  void restore(void* before) noexcept override;
  bool is_capturing(void* stream) override { return own(stream).captured.has_value(); }
  uint64_t stream_id(void* stream) override { return own(stream).id; }
  void* allocate(size_t bytes, void* stream) override;
  void release(void* memory, void* stream) noexcept override;
  void release_lasting(void* memory) noexcept override;
  void* allocate_for_graph(size_t bytes, void* stream) override;
  void release_dropped() noexcept override;
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
  void load(void (*kernels)()) override;
  Failure launch_failure() override;

 private:
  struct Stream;

  struct Event {
    int device;
    std::vector<bool> reached = {};  // by recording
    Stream* last = nullptr;          // into which it was recorded
    bool is_past() const { return reached.empty() || reached.back(); }
  };

  struct Work {
    std::function<void()> act;
    std::shared_ptr<Event> awaited = nullptr;  // in this of its recordings; null: nothing is
    size_t recording = 0;
    bool can_begin() const { return !awaited || awaited->reached[recording]; }
  };

  struct Stream {
    int device;
    void* handle;
    uint64_t id;
    bool is_destroyed = false;
    std::optional<Graph> captured = std::nullopt;
    std::deque<Work> work = {};
    bool can_go_on() const { return !work.empty() && work.front().can_begin(); }
  };

  struct Memory {
    size_t bytes;
    int device;
    bool is_there;  // the stream in whose order it was allocated has come so far
  };

  // Memory of graphs that are gone; the last of them may go after the stand-in.
  struct Dropped {
    std::vector<char*> all;
    ~Dropped();
  };

  static constexpr uintptr_t legacy_stream = 1;

  static const std::shared_ptr<Event>& event_of(void* handle) { return *static_cast<std::shared_ptr<Event>*>(handle); }
  bool is_to_fail();
  void may_fail(const char* what);
  void may_lack_memory(const char* what);
  Stream& find(int device, void* handle);
  Stream& own(void* handle);
  Stream& eager(void* handle, const char* what);
  void push(Stream& stream, Work work);
  bool do_one();
  static void do_first(Stream& stream);
  Memory* memory_at(const void* address);
  void check_access(const void* address, int device);

  int device();  // that which is current, from here on
  char* add_memory(size_t bytes, int device, bool is_there);
  void free_memory(char* begin);

  std::optional<int> current_;
  std::set<int> used_;
  std::shared_ptr<Dropped> dropped_ = std::make_shared<Dropped>();
  bool launch_failed_ = false, load_lacks_memory_ = false;
  bool may_load_ = false;  // even while a stream is capturing
  Random choice_{1};
  std::deque<Stream> streams_;
  Stream* now_;
  std::map<const char*, Memory> memory_;  // the devices'
};

}  // namespace flatstep::testing
