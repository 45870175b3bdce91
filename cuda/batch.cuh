// A batch -> the tables of its step, on the device: one thread a row, a segment and a tile. Included by target.cu, and
// by the tests' stand-in for a device.
#pragma once

#include "batch.h"
#include "prepare.cuh"

namespace flatstep::inline FLATSTEP_NAMESPACE {

FLATSTEP_FN DeviceNumber entry_of(const DeviceNumber& first, int64_t entry) {
  const bool is_wide = first.kind == NumberKind::float64 || first.kind == NumberKind::int64;
  return {static_cast<char*>(first.data) + entry * (is_wide ? 8 : 4), first.kind};
}

FLATSTEP_FN void lay_out_row(const device::Batch& batch, const device::Tables& tables, int64_t entry) {
  Scalars scalars = batch.scalars;
  scalars.count = batch.counts[entry];
#pragma unroll 1
  for (int k = 0; k < batch.column_count; ++k)
    replace(scalars, batch.columns[k].number, read(entry_of(batch.columns[k].first, entry)));
  tables.scalars[entry] = scalars;
  tables.rows[entry] = {entry, {}, 0};
}

FLATSTEP_FN void lay_out_segment(const device::Batch& batch, const device::Tables& tables, int64_t index) {
  const device::Leaf& leaf = batch.leaves[index / batch.entries];
  const int64_t entry = index % batch.entries, begin = entry * leaf.count;
  device::Segment& segment = tables.segments[index];
  segment.count = leaf.count;
  segment.param = static_cast<char*>(leaf.param) + begin * batch.param_bytes;
#pragma unroll
  for (int slot = 0; slot < max_slots; ++slot)
    segment.state[slot] = static_cast<char*>(leaf.state[slot]) + begin * batch.state_bytes[slot];
  segment.row = int32_t(entry);
  segment.makes_update = batch.makes_update;
  tables.gradients[index] = {static_cast<const char*>(leaf.grad) + begin * batch.grad_bytes, -1};
}

FLATSTEP_FN void lay_out_tile(const device::Batch& batch, const device::Tables& tables, int64_t index) {
  int leaf = 0, end = batch.leaf_count;  // it is in one of leaf <= i < end
#pragma unroll 1
  while (end - leaf > 1) {
    const int middle = (leaf + end) / 2;
    if (batch.leaves[middle].first_tile <= index) {
      leaf = middle;
    } else {
      end = middle;
    }
  }
  const int64_t within = index - batch.leaves[leaf].first_tile;
  const int64_t tiles = device::tiles_of_entry(batch.leaves[leaf].count, device::tile_elements(batch.param_bytes));
  tables.tiles[index] = {int32_t(leaf * batch.entries + within / tiles), int32_t(within % tiles)};
}

// What one thread does.
FLATSTEP_FN void lay_out(const device::Batch& batch, const device::Tables& tables, int64_t thread) {
  if (thread < batch.entries) lay_out_row(batch, tables, thread);
  if (thread < batch.entries * batch.leaf_count) lay_out_segment(batch, tables, thread);
  if (thread < batch.tile_count) lay_out_tile(batch, tables, thread);
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
