// The norm of gradients, block by block: the numbers that norm.cpp adds up. Included by cpu/target.cpp alone.
#pragma once

#include "../formats/format.h"
#include "../norm_blocks.h"
#include "blocks.h"
#include "gather.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Half as many floats as a vector has: as many as a vector has doubles.
typedef float HalfLanes __attribute__((vector_size(vector_bytes / 2)));

FLATSTEP_FN Vector<double> widen(const float* from) {
  HalfLanes lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return Vector<double>(__builtin_convertvector(lanes, Vector<double>::Lanes));
}
FLATSTEP_FN Vector<double> widen(const double* from) { return load_vector<double>(from); }

// The numbers of one block of a gradient, scaled, in the type in which steps compute. What is missing in the last lanes
// is zero, which changes no sum.
template <class Format>
struct ScaledBlock {
  using T = typename Format::Compute;
  static constexpr int width = Vector<T>::size;

  alignas(cache_line) T numbers[norm_block];
  int count;  // whole lanes

  __attribute__((noinline)) void read(const Segment& segment, int64_t first, int numbers_there, T scale) {
    using Storage = typename Format::Storage;
    alignas(cache_line) Storage gathered[norm_block];
    count = (numbers_there + norm_lanes - 1) / norm_lanes * norm_lanes;
    const Storage* from = static_cast<const Storage*>(segment.grad) + first;
    if (segment.walk || count != numbers_there) {
      if (segment.walk) {
        gather(segment.grad, *segment.walk, first, numbers_there, gathered);
      } else {
        __builtin_memcpy(gathered, from, size_t(numbers_there) * sizeof(Storage));
      }
      __builtin_memset(gathered + numbers_there, 0, size_t(count - numbers_there) * sizeof(Storage));
      from = gathered;
    }
    static_assert(norm_lanes % width == 0);
    for (int k = 0; k < count; k += width) {
      Vector<T> block[1];
      InOrder<Format>::load(from + k, block);
      store_vector(numbers + k, Vector<T>(scale) * block[0]);
    }
  }
};

// The sum of squares in doubles: lane i has those of the numbers i, i + norm_lanes, ..., then the lanes are added in
// pairs. The order is the same on every target.
template <class T>
NormBlock sum_of_squares(const T* numbers, int count) {
  constexpr int size = Vector<double>::size, vectors = norm_lanes / size;
  Vector<double> sums[vectors], zeros[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = zeros[v] = Vector<double>(0.0);
  for (int k = 0; k < count; k += norm_lanes) {
    for (int v = 0; v < vectors; ++v) {
      const Vector<double> x = widen(numbers + k + v * size);
      sums[v] = sums[v] + x * x;
      // A square of a float cannot overflow, so that the sum tells. That of a double can.
      if constexpr (sizeof(T) == sizeof(double)) zeros[v] = zeros[v] + (x - x);
    }
  }
  double lanes[norm_lanes], checks[norm_lanes];
  __builtin_memcpy(lanes, sums, sizeof lanes);
  __builtin_memcpy(checks, zeros, sizeof checks);
  for (int half = norm_lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      lanes[i] += lanes[i + half];
      checks[i] += checks[i + half];
    }
  }
  return {lanes[0], sizeof(T) == sizeof(double) ? checks[0] : lanes[0] - lanes[0]};
}

// The largest magnitude, NaN if any number is.
template <class T>
NormBlock largest_magnitude(const T* numbers, int count) {
  constexpr int size = Vector<T>::size, vectors = norm_lanes / size;
  Vector<T> largest[vectors];
  for (int v = 0; v < vectors; ++v) largest[v] = Vector<T>(T(0));
  for (int k = 0; k < count; k += norm_lanes) {
    for (int v = 0; v < vectors; ++v) {
      const auto x = load_vector<T>(numbers + k + v * size);
      largest[v] = maximum(largest[v], maximum(x, Vector<T>(T(0)) - x));
    }
  }
  T lanes[norm_lanes];
  __builtin_memcpy(lanes, largest, sizeof lanes);
  for (int i = 1; i < norm_lanes; ++i) lanes[0] = maximum(lanes[0], lanes[i]);
  return {double(lanes[0]), double(lanes[0] - lanes[0])};
}

// A Kernel: its elements are those of whole blocks. A segment's `param` is where its NormBlocks lie.
template <class Format, NormKind kind>
void find_norms(const Call& call, int64_t first, int64_t last) noexcept {
  using T = typename Format::Compute;
  for (int64_t at = find_segment(call, first); first < last; ++at) {
    const Segment& segment = call.segments[at];
    const T scale = T(call.scalars[segment.scalars].grad_scale);
    auto* const found = static_cast<NormBlock*>(segment.param);
    for (int64_t i = first - segment.first; i < segment.count && first < last; i += norm_block, first += norm_block) {
      const int count = int(segment.count - i < norm_block ? segment.count - i : norm_block);
      ScaledBlock<Format> block;
      block.read(segment, i, count, scale);
      found[i / norm_block] = kind == NormKind::two ? sum_of_squares(block.numbers, block.count)
                                                    : largest_magnitude(block.numbers, block.count);
    }
  }
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
