// Tables on their way to the device: uploads in the order of a stream, from pinned memory that no copy still reads. For
// queue.cpp.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "runtime.h"

namespace flatstep::device {

using Bytes = std::vector<char>;

// Pinned buffers, used in turn, each again once the copy from it is done. There are enough from the beginning for a
// host that is a few steps ahead of the device. One that is further ahead does not wait for a copy, but makes one more
// buffer, for which CUDA may hold up the work of all streams.
class PinnedRing {
 public:
  explicit PinnedRing(Runtime& runtime) : runtime_(runtime) {}
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;
  ~PinnedRing();

  void reserve(size_t bytes);  // buffers of that size, for the uploads to come
  void upload(void* to, const Bytes& bytes, void* stream);
  void wait();                        // for all copies
  void wait_in_stream(void* stream);  // the same, but only the stream waits

 private:
  struct Slot {
    std::shared_ptr<char> memory;  // a part of what was allocated for several
    size_t bytes;
    void* event;
  };

  void add(int count, size_t bytes);  // as those to be used next
  void drop_first();
  const Slot& next(size_t bytes);

  static constexpr int first_slots = 8;

  Runtime& runtime_;
  std::list<Slot> slots_;  // the one that was used longest ago comes first
  size_t room_ = 0;        // bytes of those that are made from now on
};

// A table in device memory, for what streams are given from its last writing on. Whoever destroys it knows that the
// device is done with it.
class Table {
 public:
  explicit Table(Runtime& runtime) : runtime_(runtime) {}
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  ~Table();

  char* memory() const { return memory_; }
  char* reserve(size_t bytes, void* stream);  // whatever lies there
  char* write(const Bytes& bytes, PinnedRing& ring, void* stream);

 private:
  Runtime& runtime_;
  char* memory_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace flatstep::device
