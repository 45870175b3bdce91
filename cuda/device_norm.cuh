// The norm of gradients, in the order of norm_blocks.h and norm.cpp. A block of threads works in rounds, between which
// its threads wait for each other; within a round they share nothing, so that the host can carry them out one by one.
// Included by target.cu, and by the tests' emulated device.
#pragma once

#include "conversions.cuh"
#include "device_norm.h"
#include "dtype.h"
#include "formats/f32.h"
#include "formats/f64.h"
#include "prepare.cuh"
#include "quads.cuh"
#include "sweep.cuh"

namespace flatstep::inline FLATSTEP_NAMESPACE {

FLATSTEP_FN NormBlock combine(NormKind kind, const NormBlock& a, const NormBlock& b) {
  return {kind == NormKind::two ? a.value + b.value : maximum(a.value, b.value), a.check + b.check};
}

// What a thread adds to its own number in a round of a tree over `count` numbers that lie side by side.
FLATSTEP_FN void add_neighbour(NormKind kind, NormBlock* values, int64_t at, int64_t distance, int64_t count) {
  if (at % (2 * distance) == 0 && at + distance < count) values[at] = combine(kind, values[at], values[at + distance]);
}

FLATSTEP_FN int rounds_of_tree(int64_t count) {
  int rounds = 0;
  while (int64_t(1) << rounds < count) ++rounds;
  return rounds;
}

template <class Format>
FLATSTEP_FN auto load_format(const void* memory, int64_t place) {
  return DeviceTile<Format>(const_cast<void*>(memory), place).load(0);
}

// One lane of a block: its numbers are those with the places lane, lane + norm_lanes, ... What is missing in the last
// lanes is zero.
template <class Format, NormKind kind>
FLATSTEP_FN NormBlock lane_of_block(const device::Gradient& gradient, const int64_t* walk, double scale, int64_t first,
                                    int count, int lane) {
  using T = typename Format::Compute;
  const T own_scale = T(scale);
  const int rounds = (count + norm_lanes - 1) / norm_lanes;
  double sum = 0, check = 0;
  T largest = 0;
  const auto add = [&](int at, int64_t place) {
    const T number = own_scale * (at < count ? load_format<Format>(gradient.data, place) : T(0));
    if constexpr (kind == NormKind::largest) {
      largest = maximum(largest, maximum(number, T(0) - number));
    } else {
      sum = sum + double(number) * double(number);
      // A square of a float cannot overflow, so that the sum tells. That of a double can.
      if constexpr (sizeof(T) == sizeof(double)) check = check + (number - number);
    }
  };
  if (walk) {
#pragma unroll 1
    for (int k = 0, at = lane; k < rounds; ++k, at += norm_lanes) add(at, at < count ? walk_to(walk, first + at) : 0);
  } else {
#pragma unroll 8
    for (int k = 0, at = lane; k < rounds; ++k, at += norm_lanes) add(at, first + at);
  }
  if constexpr (kind == NormKind::largest) return {double(largest), double(largest - largest)};
  return {sum, sizeof(T) == sizeof(double) ? check : sum - sum};
}

FLATSTEP_FN double norm_scale(const device::Norm& norm, int32_t index) {
  return norm.scale.data ? 1 / read(norm.scale) : norm.scales[index];
}

// Some blocks of one gradient -> their sum as one tree.
struct UnitOfNorm {
  static constexpr int rows_begin = 5, last = 9;  // rounds: a lane each, trees of lanes, the tree of rows, the end

  FLATSTEP_FN static int rounds(const device::Norm&) { return last + 1; }

  FLATSTEP_FN static void round(const device::Norm& norm, int round, int64_t unit, int thread, NormBlock* shared) {
    const device::Tile tile = norm.units[unit];
    const device::NormSegment segment = norm.segments[tile.segment];
    const int64_t begin = int64_t(tile.index) * device::unit_elements;
    const int lane = thread % norm_lanes, row = thread / norm_lanes;
    if (round == 0) {
      shared[thread] = first_round(norm, segment, tile.segment, begin + int64_t(row) * norm_block, lane);
    } else if (round < rows_begin) {
      const int half = norm_lanes >> round;
      if (lane < half) shared[thread] = combine(norm.kind, shared[thread], shared[thread + half]);
    } else if (round < last) {
      const int distance = 1 << (round - rows_begin);
      const int64_t rows = (segment.count - begin + norm_block - 1) / norm_block;
      if (lane == 0 && row % (2 * distance) == 0 && row + distance < device::norm_rows && row + distance < rows)
        shared[thread] = combine(norm.kind, shared[thread], shared[thread + distance * norm_lanes]);
    } else if (thread == 0) {
      norm.unit_values[segment.first_unit + tile.index] = shared[0];
    }
  }

 private:
  FLATSTEP_FN static NormBlock first_round(const device::Norm& norm, const device::NormSegment& segment, int32_t index,
                                           int64_t first, int lane) {
    const device::Gradient gradient = norm.gradients[index];
    const int64_t* const walk = gradient.walk < 0 ? nullptr : norm.walks + gradient.walk;
    const double scale = norm_scale(norm, segment.scales);
    const int64_t left = segment.count - first;
    const int count = left <= 0 ? 0 : left < norm_block ? int(left) : norm_block;
    return norm.kind == NormKind::two
               ? of_dtype<NormKind::two>(segment.dtype, gradient, walk, scale, first, count, lane)
               : of_dtype<NormKind::largest>(segment.dtype, gradient, walk, scale, first, count, lane);
  }

  template <NormKind kind>
  FLATSTEP_FN static NormBlock of_dtype(int32_t dtype, const device::Gradient& gradient, const int64_t* walk,
                                        double scale, int64_t first, int count, int lane) {
    switch (Dtype(dtype)) {
      case Dtype::float16: return lane_of_block<F16, kind>(gradient, walk, scale, first, count, lane);
      case Dtype::bfloat16: return lane_of_block<BF16, kind>(gradient, walk, scale, first, count, lane);
      case Dtype::float32: return lane_of_block<F32, kind>(gradient, walk, scale, first, count, lane);
      default: return lane_of_block<F64, kind>(gradient, walk, scale, first, count, lane);
    }
  }
};

// Some units of one gradient -> their sum as one tree.
struct GroupOfNorm {
  static constexpr int last = 9;
  static_assert(1 << (last - 1) == device::norm_threads);

  FLATSTEP_FN static int rounds(const device::Norm&) { return last + 1; }

  FLATSTEP_FN static void round(const device::Norm& norm, int round, int64_t group, int thread, NormBlock* shared) {
    const device::Tile tile = norm.groups[group];
    const device::NormSegment segment = norm.segments[tile.segment];
    const int64_t begin = int64_t(tile.index) * device::norm_threads, left = device::units_of(segment.count) - begin;
    const int64_t count = left < device::norm_threads ? left : device::norm_threads;
    if (round == 0) {
      if (thread < count) shared[thread] = norm.unit_values[segment.first_unit + begin + thread];
    } else if (round < last) {
      add_neighbour(norm.kind, shared, thread, 1 << (round - 1), count);
    } else if (thread == 0) {
      norm.group_values[segment.first_group + tile.index] = shared[0];
    }
  }
};

// All groups -> the norm, and what follows from it. There is one block of threads.
struct RestOfNorm {
  FLATSTEP_FN static int rounds(const device::Norm& norm) { return 2 + rounds_of_tree(norm.segment_count); }

  FLATSTEP_FN static void round(const device::Norm& norm, int round, int64_t, int thread, NormBlock*) {
    if (round == 0) {
      for (int64_t i = thread; i < norm.segment_count; i += device::norm_threads) add_groups(norm, norm.segments[i]);
    } else if (round < rounds(norm) - 1) {
      const int64_t distance = int64_t(1) << (round - 1);
      for (int64_t i = thread * 2 * distance; i + distance < norm.segment_count;
           i += device::norm_threads * 2 * distance)
        of_segment(norm, i) = combine(norm.kind, of_segment(norm, i), of_segment(norm, i + distance));
    } else if (thread == 0) {
      finish(norm);
    }
  }

 private:
  FLATSTEP_FN static NormBlock& of_segment(const device::Norm& norm, int64_t index) {
    return norm.group_values[norm.segments[index].first_group];
  }

  // A tree by one thread: a group has four million numbers, so that there are few.
  FLATSTEP_FN static void add_groups(const device::Norm& norm, const device::NormSegment& segment) {
    NormBlock* const values = norm.group_values + segment.first_group;
    const int64_t count = device::groups_of(segment.count);
#pragma unroll 1
    for (int64_t distance = 1; distance < count; distance *= 2) {
#pragma unroll 1
      for (int64_t i = 0; i + distance < count; i += 2 * distance)
        values[i] = combine(norm.kind, values[i], values[i + distance]);
    }
  }

  FLATSTEP_FN static void finish(const device::Norm& norm) {
    FoundNorm& found = *norm.found;
    if (norm.skip && *norm.skip != 0) {
      found.skips = *norm.skip;
      return;
    }
    const NormBlock all = norm.segment_count > 0 ? of_segment(norm, 0) : NormBlock{0, 0};
    const bool skips = norm.skips_nonfinite && all.check != 0;
    found.norm = norm.kind == NormKind::two ? square_root(all.value) : all.value;
    found.factor = norm.clips ? clip_factor(norm.formula, norm.max_norm, found.norm) : 1;
    found.skips = skips;
    found.skipped += skips;
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
