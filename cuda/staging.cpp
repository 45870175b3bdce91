// See staging.h.
#include "staging.h"

#include <algorithm>
#include <cstring>

namespace flatstep::device {

PinnedRing::~PinnedRing() {
  while (!slots_.empty()) drop_first();
}

void PinnedRing::drop_first() {
  runtime_.release_event(slots_.front().event);
  slots_.pop_front();
}

void PinnedRing::add(int count, size_t bytes) {
  const auto release = [&runtime = runtime_](char* memory) { runtime.release_pinned(memory); };
  const std::shared_ptr<char> all(static_cast<char*>(runtime_.allocate_pinned(size_t(count) * bytes)), release);
  for (int i = 0; i < count; ++i) {
    slots_.push_front({{all, all.get() + size_t(i) * bytes}, bytes, nullptr});
    try {
      slots_.front().event = runtime_.make_event();
    } catch (...) {
      slots_.pop_front();
      throw;
    }
  }
}

void PinnedRing::reserve(size_t bytes) {
  if (bytes <= room_) return;
  constexpr size_t least = 4096;
  while (!slots_.empty() && runtime_.is_past(slots_.front().event)) drop_first();
  const size_t room = std::max(least, (bytes + bytes / 4 + least - 1) / least * least);
  add(first_slots, room);
  room_ = room;
}

// The one of that size that was used longest ago, or a new one.
const PinnedRing::Slot& PinnedRing::next(size_t bytes) {
  auto found = std::find_if(slots_.begin(), slots_.end(), [=](const Slot& slot) { return slot.bytes >= bytes; });
  if (found == slots_.end() || !runtime_.is_past(found->event)) {
    add(1, std::max(bytes, room_));
    found = slots_.begin();
  }
  slots_.splice(slots_.end(), slots_, found);
  return *found;
}

void PinnedRing::upload(void* to, const Bytes& bytes, void* stream) {
  if (bytes.empty()) return;
  const Slot& slot = next(bytes.size());
  std::memcpy(slot.memory.get(), bytes.data(), bytes.size());
  runtime_.copy(to, slot.memory.get(), bytes.size(), stream);
  runtime_.record(slot.event, stream);
}

void PinnedRing::wait() {
  for (const Slot& slot : slots_) runtime_.wait(slot.event);
}

void PinnedRing::wait_in_stream(void* stream) {
  for (const Slot& slot : slots_) runtime_.wait_in_stream(stream, slot.event);
}

Table::~Table() {
  if (memory_) runtime_.release_lasting(memory_);
}

char* Table::reserve(size_t bytes, void* stream) {
  if (bytes <= capacity_) return memory_;
  const size_t room = bytes + bytes / 4;
  auto* const fresh = static_cast<char*>(runtime_.allocate(room, stream));
  if (memory_) runtime_.release(memory_, stream);
  memory_ = fresh;
  capacity_ = room;
  return memory_;
}

char* Table::write(const Bytes& bytes, PinnedRing& ring, void* stream) {
  ring.upload(reserve(bytes.size(), stream), bytes, stream);
  return memory_;
}

}  // namespace flatstep::device
