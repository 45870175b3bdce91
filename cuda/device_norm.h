// Gradients -> their norm, on the device: the tables that its kernels read, and what they are launched with. PODs and
// index arithmetic. Included by queue.h and by kernels.
#pragma once

#include "segments.h"

namespace flatstep::device {

constexpr int norm_rows = 16;                         // blocks of a gradient that one block of threads adds up
constexpr int norm_threads = norm_rows * norm_lanes;  // a lane of a block each; and units that one block adds up
constexpr int unit_elements = norm_rows * norm_block;

// One gradient. Its units and groups have these places among those of all gradients.
struct alignas(table_alignment) NormSegment {
  int64_t count;
  int64_t first_unit;
  int64_t first_group;
  int32_t dtype;   // as Dtype
  int32_t scales;  // index of its own among scales
};

static_assert(std::has_unique_object_representations_v<NormSegment>);

FLATSTEP_FN int64_t units_of(int64_t count) { return (count + unit_elements - 1) / unit_elements; }
FLATSTEP_FN int64_t groups_of(int64_t count) { return (units_of(count) + norm_threads - 1) / norm_threads; }

// What all of its kernels are launched with.
struct Norm {
  const Tile* units;   // each: a segment, and which of its units
  const Tile* groups;  // of units
  int64_t unit_count, group_count, segment_count;
  const NormSegment* segments;
  const Gradient* gradients;
  const int64_t* walks;
  const double* scales;
  DeviceNumber scale;  // of a loss, in place of all scales; no data: none
  NormBlock* unit_values;
  NormBlock* group_values;
  NormKind kind;
  ClipFormula formula;
  int32_t clips, skips_nonfinite;
  double max_norm;
  const float* skip;
  FoundNorm* found;
};

}  // namespace flatstep::device
