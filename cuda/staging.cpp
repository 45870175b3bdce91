// See staging.h.
#include "staging.h"

#include <algorithm>
#include <cstring>

namespace flatstep::device {

PinnedRing::~PinnedRing() {
  for (const Slot& slot : slots_) {
    runtime_.release_event(slot.event);
    runtime_.release_pinned(slot.memory);
  }
}

PinnedRing::Slot& PinnedRing::free_slot(size_t bytes) {
  for (Slot& slot : slots_) {
    if (slot.bytes >= bytes && runtime_.is_past(slot.event)) return slot;
  }
  const size_t room = std::max<size_t>(bytes + bytes / 4, 4096);
  slots_.reserve(slots_.size() + 1);
  Slot slot{runtime_.allocate_pinned(room), room, nullptr};
  try {
    slot.event = runtime_.make_event();
  } catch (...) {
    runtime_.release_pinned(slot.memory);
    throw;
  }
  slots_.push_back(slot);
  return slots_.back();
}

void PinnedRing::upload(void* to, const Bytes& bytes, void* stream) {
  if (bytes.empty()) return;
  Slot& slot = free_slot(bytes.size());
  std::memcpy(slot.memory, bytes.data(), bytes.size());
  runtime_.copy(to, slot.memory, bytes.size(), stream);
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

Lasting::~Lasting() {
  for (void* memory : memory_) runtime_.release_lasting(memory);
}

char* Lasting::reserve(size_t bytes) {
  memory_.reserve(memory_.size() + 1);
  memory_.push_back(runtime_.allocate_lasting(bytes));
  return static_cast<char*>(memory_.back());
}

char* Lasting::write(const Bytes& bytes) {
  char* const to = reserve(bytes.size());
  if (!bytes.empty()) runtime_.copy_now(to, bytes.data(), bytes.size());
  return to;
}

}  // namespace flatstep::device
