// Tables on their way to the device: uploads in the order of a stream, from pinned memory that no copy still reads. For
// queue.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime.h"

namespace flatstep::device {

using Bytes = std::vector<char>;

// Pinned buffers, each free again once the copy from it is done. Nobody waits: where none is free there will be one
// more.
class PinnedRing {
 public:
  explicit PinnedRing(Runtime& runtime) : runtime_(runtime) {}
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;
  ~PinnedRing();

  void upload(void* to, const Bytes& bytes, void* stream);
  void wait();                        // for all copies
  void wait_in_stream(void* stream);  // the same, but only the stream waits

 private:
  struct Slot {
    void* memory;
    size_t bytes;
    void* event;
  };

  Slot& free_slot(size_t bytes);

  Runtime& runtime_;
  std::vector<Slot> slots_;
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

// Tables that a captured graph reads at every replay: written once, before the graph can run, and never again.
class Lasting {
 public:
  explicit Lasting(Runtime& runtime) : runtime_(runtime) {}
  Lasting(const Lasting&) = delete;
  Lasting& operator=(const Lasting&) = delete;
  ~Lasting();

  char* write(const Bytes& bytes);
  char* reserve(size_t bytes);

 private:
  Runtime& runtime_;
  std::vector<void*> memory_;
};

}  // namespace flatstep::device
