// See stand_in.h. Compiled with the kernels' flags, which say how arithmetic rounds.
#include "stand_in.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "batch.cuh"
#include "prepare.cuh"
#include "sweep.cuh"

namespace flatstep::testing {

namespace {

StandIn* active;

// As a device gives it: well aligned.
void* new_memory(size_t bytes) {
  constexpr size_t alignment = 256;
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

// Past once the last recording is.
struct Event {
  int recorded = 0, reached = 0;
  bool is_past() const { return reached == recorded; }
};

}  // namespace

}  // namespace flatstep::testing

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Every thread of the blocks that a device would be given, last ones first: none may count on another.
template <class F>
void for_each_thread(int64_t threads, F&& thread) {
  for (int64_t i = device::blocks_for(threads) * device::block_threads; i-- > 0;) thread(i);
}

void launch_tables(const device::Batch& batch, const device::Tables& tables, void*) {
  testing::active->enqueue_launch([batch, tables] {
    for_each_thread(device::threads_of(batch), [&](int64_t thread) { lay_out(batch, tables, thread); });
  });
}

template <class R, class L>
void load() {
  testing::active->load();
}

template <class R, class T>
void launch_preparation(const device::Preparation& preparation, void*) {
  testing::active->enqueue_launch([preparation] {
    for_each_thread(preparation.row_count, [&](int64_t thread) { prepare_row<R, T>(preparation, thread); });
  });
}

template <class R, class L>
void launch_sweep(const device::Sweep& sweep, void*) {
  testing::active->enqueue_launch([sweep] {
    for_each_thread(sweep.tile_count * device::lanes, [&](int64_t thread) {
      sweep_lane<R, L>(sweep, thread / device::lanes, int(thread % device::lanes));
    });
  });
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE

#include "stamp.cuh"

namespace flatstep::testing {

const device::LayOut StandIn::lay_out = &launch_tables;
const device::Kernels StandIn::kernels = Table<Rules>::rows;

StandIn::StandIn() {
  if (active) throw std::logic_error("there is a stand-in already");
  active = this;
}

StandIn::~StandIn() {
  synchronize();
  active = nullptr;
}

void StandIn::synchronize() {
  while (!stream_.empty()) do_one();
}

void StandIn::do_one() {
  const std::function<void()> work = std::move(stream_.front());
  stream_.pop_front();
  work();
}

void StandIn::run(std::function<void()> kernel) {
  stream_.push_back(std::move(kernel));
  if (!is_lazy) synchronize();
}

void StandIn::begin_capture() {
  graph_.clear();
  is_captured_ = true;
}

void StandIn::replay() { stream_.insert(stream_.end(), graph_.begin(), graph_.end()); }

void StandIn::enqueue_launch(std::function<void()> kernel) {
  ++launches;
  if (fails_launches) {
    launch_failed_ = true;
  } else if (is_captured_) {
    graph_.push_back(std::move(kernel));
  } else {
    run(std::move(kernel));
  }
}

std::string StandIn::launch_failure() {
  const bool failed = launch_failed_;
  launch_failed_ = false;
  return failed ? "a planned failure" : "";
}

void StandIn::load() {
  ++loads;
  launch_failed_ = launch_failed_ || fails_loads;
}

void StandIn::may_fail(const char* what) {
  if (fails_after < 0 || fails_after-- > 0) return;
  throw std::runtime_error(std::string("planned: out of memory in ") + what);
}

void* StandIn::allocate(size_t bytes, void*) {
  if (is_captured_) throw std::logic_error("a graph must not allocate");
  may_fail("allocate");
  ++allocations;
  return new_memory(bytes);
}

void StandIn::release(void* memory, void*) noexcept {
  if (is_captured_) std::abort();  // a graph must not release
  stream_.push_back([memory] { std::free(memory); });
}

void* StandIn::allocate_lasting(size_t bytes) {
  may_fail("allocate_lasting");
  ++allocations;
  return new_memory(bytes);
}

void StandIn::release_lasting(void* memory) noexcept { std::free(memory); }

void* StandIn::allocate_pinned(size_t bytes) {
  may_fail("allocate_pinned");
  ++allocations;
  return std::malloc(bytes);
}

void StandIn::release_pinned(void* memory) noexcept { std::free(memory); }

void StandIn::copy(void* to, const void* from, size_t bytes, void*) {
  if (is_captured_) throw std::logic_error("a graph must not copy from memory that will be written again");
  may_fail("copy");
  ++copies;
  stream_.push_back([=] { std::memcpy(to, from, bytes); });
  if (!is_lazy) synchronize();
}

void StandIn::copy_and_wait(void* to, const void* from, size_t bytes, void* stream) {
  copy(to, from, bytes, stream);
  synchronize();
}

void StandIn::clear(void* memory, size_t bytes, void*) {
  may_fail("clear");
  stream_.push_back([=] { std::memset(memory, 0, bytes); });
  if (!is_lazy) synchronize();
}

void StandIn::wait_in_stream(void*, void*) {}  // there is but one

void StandIn::copy_now(void* to, const void* from, size_t bytes) {
  may_fail("copy_now");
  ++copies;
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void* StandIn::make_event() {
  may_fail("make_event");
  return new Event;
}

void StandIn::record(void* event, void*) {
  if (is_captured_) throw std::logic_error("a graph must not record what others wait for");
  auto* const own = static_cast<Event*>(event);
  ++own->recorded;
  stream_.push_back([own] { ++own->reached; });
  if (!is_lazy) synchronize();
}

// The device goes on a little whenever somebody asks.
bool StandIn::is_past(void* event) {
  if (!stream_.empty()) do_one();
  return static_cast<Event*>(event)->is_past();
}

void StandIn::wait(void* event) noexcept {
  ++waits;
  while (!static_cast<Event*>(event)->is_past()) do_one();
}

void StandIn::release_event(void* event) noexcept { delete static_cast<Event*>(event); }

}  // namespace flatstep::testing
