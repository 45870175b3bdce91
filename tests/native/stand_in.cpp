// See stand_in.h.
#include "stand_in.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace flatstep::testing {

namespace {

StandIn* the_active;

// As a device gives it: well aligned, but no longer than asked for, so that sanitizers see who goes beyond.
char* new_memory(size_t bytes) {
  constexpr size_t alignment = 256;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

// Calls that cannot throw end the test instead.
template <class F>
void or_abort(F&& f) {
  try {
    f();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::abort();
  }
}

}  // namespace

StandIn& StandIn::active() { return *the_active; }

StandIn::StandIn() : now_(&find(0, nullptr)) {
  if (the_active) throw std::logic_error("there is a stand-in already");
  the_active = this;
}

StandIn::~StandIn() {
  synchronize();
  the_active = nullptr;
}

StandIn::Dropped::~Dropped() {
  for (char* begin : all) std::free(begin);
}

void StandIn::set_device(int index) {
  current_ = index;
  used_.insert(index);
}

int StandIn::device() {
  if (!current_) set_device(0);
  return *current_;
}

// A device's index, and one more.
void* StandIn::make_current(int index) {
  const intptr_t before = current_ ? *current_ + 1 : 0;
  set_device(index);
  return reinterpret_cast<void*>(before);
}

void StandIn::restore(void* before) noexcept {
  current_.reset();
  if (before) current_ = int(reinterpret_cast<intptr_t>(before)) - 1;
}

size_t StandIn::bytes_in_use() const {
  size_t bytes = 0;
  for (const auto& [begin, memory] : memory_) bytes += memory.bytes;
  return bytes;
}

// Of a device's own stream there is always one; like CUDA's it has two handles.
StandIn::Stream& StandIn::find(int device, void* handle) {
  if (handle == reinterpret_cast<void*>(legacy_stream)) handle = nullptr;
  for (Stream& stream : streams_) {
    if (stream.handle == handle && !stream.is_destroyed && (handle || stream.device == device)) return stream;
  }
  if (handle) throw std::logic_error("there is no such stream");
  return streams_.emplace_back(Stream{device, nullptr, streams_.size() + 1});
}

void* StandIn::make_stream(int device) {
  for (uintptr_t number = legacy_stream + 2;; ++number) {
    auto* const handle = reinterpret_cast<void*>(number);
    const auto has_it = [&](const Stream& stream) { return stream.handle == handle && !stream.is_destroyed; };
    if (std::any_of(streams_.begin(), streams_.end(), has_it)) continue;
    streams_.push_back({device, handle, streams_.size() + 1});
    return handle;
  }
}

void StandIn::destroy_stream(void* handle) { find(0, handle).is_destroyed = true; }

void StandIn::use(int device, void* handle) { now_ = &find(device, handle); }

void StandIn::run(std::function<void()> kernel) { push(*now_, {std::move(kernel)}); }

void StandIn::go_on() {
  while (now_->can_go_on()) do_first(*now_);
}

void StandIn::synchronize() {
  while (do_one()) continue;
}

void StandIn::begin_capture() { now_->captured.emplace(); }

StandIn::Graph StandIn::end_capture() {
  Graph graph = std::move(*now_->captured);
  now_->captured.reset();
  return graph;
}

void StandIn::replay(const Graph& graph) {
  for (const auto& kernel : graph.kernels) push(*now_, {[kernel, memory = graph.memory] { kernel(); }});
}

// As given by a caller, who should have the stream's device current.
StandIn::Stream& StandIn::own(void* handle) {
  Stream& stream = find(device(), handle);
  if (stream.device != device()) throw std::logic_error("another device is current than that of the stream");
  return stream;
}

StandIn::Stream& StandIn::eager(void* handle, const char* what) {
  Stream& stream = own(handle);
  if (stream.captured) throw std::logic_error(std::string("a graph must not ") + what);
  return stream;
}

void StandIn::push(Stream& stream, Work work) {
  stream.work.push_back(std::move(work));
  if (!is_lazy) synchronize();
}

// Any stream that can goes on; false where none can.
bool StandIn::do_one() {
  std::vector<Stream*> ready;
  for (Stream& stream : streams_) {
    if (stream.can_go_on()) ready.push_back(&stream);
  }
  if (ready.empty()) return false;
  do_first(*choice_.pick(ready));
  return true;
}

void StandIn::do_first(Stream& stream) {
  const Work work = std::move(stream.work.front());
  stream.work.pop_front();
  work.act();
}

// Null where it is none of a device's, but a test's own.
StandIn::Memory* StandIn::memory_at(const void* address) {
  const auto* const byte = static_cast<const char*>(address);
  auto after = memory_.upper_bound(byte);
  if (after == memory_.begin()) return nullptr;
  auto& [begin, memory] = *--after;
  return byte < begin + memory.bytes ? &memory : nullptr;
}

void StandIn::check_access(const void* address, int device) {
  const Memory* const memory = memory_at(address);
  if (!memory) return;
  if (memory->device != device) throw std::logic_error("the memory is another device's");
  if (!memory->is_there) throw std::logic_error("nobody has waited for the memory to be there");
}

void StandIn::enqueue_launch(void* handle, const std::vector<const void*>& tables, std::function<void()> kernel) {
  ++launches;
  last_stream = handle;
  Stream& stream = own(handle);
  if (fails_launches) {
    launch_failed_ = true;
    return;
  }
  auto checked = [this, device = stream.device, tables, own = std::move(kernel)] {
    for (const void* table : tables) check_access(table, device);
    own();
  };
  if (stream.captured) {
    stream.captured->kernels.push_back(std::move(checked));
  } else {
    push(stream, {std::move(checked)});
  }
}

device::Runtime::Failure StandIn::launch_failure() {
  const bool lacks_memory = std::exchange(load_lacks_memory_, false);
  if (lacks_memory) return {"planned: out of memory in load", true};
  return {std::exchange(launch_failed_, false) ? "a planned failure" : ""};
}

void StandIn::load(void (*kernels)()) {
  may_load_ = true;
  kernels();
  may_load_ = false;
}

// As a capture of CUDA's forbids by default, of any stream.
void StandIn::load_kernel() {
  const auto is_captured = [](const Stream& stream) { return stream.captured.has_value(); };
  if (!may_load_ && std::any_of(streams_.begin(), streams_.end(), is_captured))
    throw std::logic_error("no kernel may be loaded while a stream is capturing");
  device();
  ++loads;
  load_lacks_memory_ = is_to_fail();
  launch_failed_ = launch_failed_ || fails_loads;
}

bool StandIn::is_to_fail() {
  if (fails_after < 0 || fails_after-- > 0) return false;
  if (--failures > 0) fails_after = 0;
  return true;
}

void StandIn::may_fail(const char* what) {
  if (is_to_fail()) throw std::runtime_error(std::string("planned: a failure in ") + what);
}

void StandIn::may_lack_memory(const char* what) {
  if (is_to_fail()) throw OutOfDeviceMemory(std::string("planned: out of memory in ") + what);
}

void* StandIn::allocate(size_t bytes, void* handle) {
  Stream& stream = eager(handle, "allocate");
  may_lack_memory("allocate");
  char* const begin = add_memory(bytes, stream.device, false);
  push(stream, {[this, begin] { memory_.at(begin).is_there = true; }});
  return begin;
}

void StandIn::release(void* memory, void* handle) noexcept {
  or_abort([&] {
    Stream& stream = eager(handle, "release");
    auto* const begin = static_cast<char*>(memory);
    push(stream, {[this, begin, device = stream.device] {
           check_access(begin, device);
           free_memory(begin);
         }});
  });
}

char* StandIn::add_memory(size_t bytes, int device, bool is_there) {
  ++allocations;
  char* const begin = new_memory(bytes);
  memory_[begin] = {bytes, device, is_there};
  return begin;
}

void StandIn::free_memory(char* begin) {
  memory_.erase(begin);
  std::free(begin);
}

void StandIn::release_lasting(void* memory) noexcept {
  or_abort([&] {
    check_access(memory, device());
    free_memory(static_cast<char*>(memory));
  });
}

void* StandIn::allocate_for_graph(size_t bytes, void* handle) {
  Stream& stream = own(handle);
  if (!stream.captured) throw std::logic_error("the stream is not capturing");
  may_lack_memory("allocate_for_graph");
  const auto drop = [dropped = dropped_](char* memory) { dropped->all.push_back(memory); };
  stream.captured->memory.emplace_back(add_memory(bytes, stream.device, true), drop);
  return stream.captured->memory.back().get();
}

void StandIn::release_dropped() noexcept {
  or_abort([&] {
    const auto is_elsewhere = [this](char* begin) { return memory_.at(begin).device != device(); };
    const auto first = std::partition(dropped_->all.begin(), dropped_->all.end(), is_elsewhere);
    std::for_each(first, dropped_->all.end(), [this](char* begin) { free_memory(begin); });
    dropped_->all.erase(first, dropped_->all.end());
  });
}

void* StandIn::allocate_pinned(size_t bytes) {
  may_lack_memory("allocate_pinned");
  device();
  ++allocations;
  ++pinned_allocations;
  return std::malloc(bytes);
}

void StandIn::release_pinned(void* memory) noexcept {
  device();
  std::free(memory);
}

void StandIn::copy(void* to, const void* from, size_t bytes, void* handle) {
  Stream& stream = eager(handle, "copy from memory that will be written again");
  may_fail("copy");
  ++copies;
  push(stream, {[=, this, device = stream.device] {
         check_access(to, device);
         std::memcpy(to, from, bytes);
       }});
}

void StandIn::copy_and_wait(void* to, const void* from, size_t bytes, void* handle) {
  Stream& stream = eager(handle, "wait");
  may_fail("copy_and_wait");
  ++copies;
  bool is_done = false;
  push(stream, {[&, device = stream.device] {
         check_access(to, device);
         check_access(from, device);
         std::memcpy(to, from, bytes);
         is_done = true;
       }});
  while (!is_done && do_one()) continue;
}

void StandIn::clear(void* memory, size_t bytes, void* handle) {
  Stream& stream = eager(handle, "clear what is new");
  may_fail("clear");
  push(stream, {[=, this, device = stream.device] {
         check_access(memory, device);
         std::memset(memory, 0, bytes);
       }});
}

void StandIn::copy_now(void* to, const void* from, size_t bytes) {
  may_fail("copy_now");
  ++copies;
  check_access(to, device());
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void* StandIn::make_event() {
  may_lack_memory("make_event");
  return new std::shared_ptr<Event>(new Event{device()});
}

void StandIn::record(void* event, void* handle) {
  Stream& stream = eager(handle, "record what others wait for");
  const std::shared_ptr<Event> own = event_of(event);
  if (own->device != stream.device) throw std::logic_error("the event is another device's");
  own->reached.push_back(false);
  own->last = &stream;
  push(stream, {[own, recording = own->reached.size() - 1] { own->reached[recording] = true; }});
}

void StandIn::wait_in_stream(void* handle, void* event) {
  Stream& stream = eager(handle, "wait for what is not part of it");
  may_fail("wait_in_stream");
  ++waits_in_stream;
  const std::shared_ptr<Event>& own = event_of(event);
  if (!own->reached.empty()) push(stream, {[] {}, own, own->reached.size() - 1});
}

// The stream that somebody asks for goes on a little.
bool StandIn::is_past(void* event) {
  device();
  Stream* const stream = event_of(event)->last;
  if (stream && stream->can_go_on()) do_first(*stream);
  return event_of(event)->is_past();
}

void StandIn::wait(void* event) noexcept {
  ++waits;
  device();
  or_abort([&] {
    while (!event_of(event)->is_past()) do_one();
  });
}

void StandIn::release_event(void* event) noexcept {
  device();
  delete static_cast<std::shared_ptr<Event>*>(event);
}

}  // namespace flatstep::testing
