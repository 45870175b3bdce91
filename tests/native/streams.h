// Tensors for any kernel of the catalogue, lying as badly as kernels must bear: streams that begin where they like,
// strided gradients, updates in the gradient's place. For tests only.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "call.h"
#include "testing.h"

namespace flatstep::testing {

// One stream of a tensor. Its memory ends with it, so that an address sanitizer sees the byte after it; those before it
// are a canary.
class Stream {
 public:
  static constexpr int64_t phases = 64;

  // Begins so many elements after an address that is a multiple of 64 of them.
  Stream(int64_t elements, int item_bytes, int64_t phase);

  char* data() const { return memory_.get() + front_; }
  void fill(Random& random, bool with_signs);
  std::string image() const;  // throws where the canary has changed

 private:
  static constexpr std::align_val_t alignment{phases * 8};
  struct Free {
    void operator()(char* memory) const { operator delete[](memory, alignment); }
  };

  int64_t bytes_, front_;
  std::unique_ptr<char[], Free> memory_;
};

// Tensors of one layout. The same seed makes the same again, elsewhere in memory.
class Streams {
 public:
  Streams(int rule, int layout, const std::vector<int64_t>& lengths, int64_t rows, uint64_t seed);

  int layout() const { return layout_; }

  // Each with its row of numbers in `scalars`. What they point to is there as long as this is.
  const std::vector<Segment>& segments() const { return segments_; }

  // Other gradients, elsewhere; the old ones stay. Where an update takes its gradient's place, it is the next gradient.
  void renew_gradients();

  std::vector<std::string> images() const;  // all bytes of all streams

 private:
  struct OwnedWalk {
    std::vector<int64_t> shape, strides;
    Walk walk;
  };

  void add(int64_t length, int64_t row);
  void give_gradient(Segment& segment, int64_t phase);
  void give_walk(Segment& segment);
  Stream& make_stream(int64_t elements, int item_bytes, int64_t phase, bool with_signs);
  int64_t some_phase(int64_t common) { return random_.chance(88) ? common : random_.below(Stream::phases); }

  int rule_, layout_;
  Random random_;
  std::vector<Segment> segments_;
  std::vector<int64_t> phases_;  // common to the streams of a segment, as a rule
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::unique_ptr<OwnedWalk>> walks_;
};

// Around the places where packs, lanes and tiles begin and end; none is empty. Many tensors are short ones.
std::vector<int64_t> random_lengths(Random& random, int64_t tensors);

}  // namespace flatstep::testing
