// Random tensors, good and bad, and by brute force what they mean. For fuzz_step.cpp alone.
#pragma once

#include <algorithm>
#include <optional>

#include "step.h"
#include "testing.h"

namespace flatstep::testing {

using Wide = __int128;  // holds any sum of addresses

// A tensor that owns its shape and strides.
struct Description {
  char* data;
  Dtype dtype;
  std::vector<int64_t> shape, strides;  // in elements
  bool read_only;

  int item_bytes() const { return bytes_of(dtype); }
  Tensor tensor() const {
    return {data, shape.data(), strides.data(), int(shape.size()), dtype, read_only, {cpu_device, 0}, nullptr};
  }
};

// Where an array may lie. What a descriptor names is always inside, or else outside of any address space.
struct Room {
  char* begin;
  int64_t bytes;
};

Description random_param(Random& random, const Room& room);
Description random_grad(Random& random, const Room& room, const Description& param);

// The addresses of all elements, last axis fastest. Nothing where they are too many to be real.
std::optional<std::vector<Wide>> addresses(const Description& array);

// From the first to behind the last byte; none if it is empty.
struct Range {
  Wide begin, end;
  bool overlaps(const Range& other) const { return std::max(begin, other.begin) < std::min(end, other.end); }
};
Range extent_of(const Description& array);

// A gradient with one axis spread so that what lies in the middle fits between its elements, or just does not. Nothing
// where it would leave the room.
std::optional<Description> spread_grad(Random& random, const Description& param, const Range& middle, const Room& room);

// What step.h promises to take, decided element by element.
bool is_good_param(const Description& param, int rule, std::optional<Dtype> first_moment);
bool is_good_grad(const Description& grad, const Description& param, const std::vector<Range>& written);

}  // namespace flatstep::testing
