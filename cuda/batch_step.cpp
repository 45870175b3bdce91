// See batch_step.h.
#include "batch_step.h"

#include <limits>
#include <stdexcept>

namespace flatstep::device {

namespace {

// The next table: its place, after which `bytes` are taken.
template <class T>
T* take(char* memory, int64_t& bytes, int64_t count, int64_t item_bytes = sizeof(T)) {
  constexpr int64_t alignment = 16;
  const int64_t begin = (bytes + alignment - 1) / alignment * alignment;
  bytes = begin + count * item_bytes;
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(memory) + uintptr_t(begin));
}

}  // namespace

Workspace::Workspace(char* memory, int64_t entries, int64_t leaves, int64_t tiles, int64_t coefficient_bytes)
    : bytes(0) {
  tables.coefficients = take<char>(memory, bytes, entries, coefficient_bytes);
  tables.scalars = take<Scalars>(memory, bytes, entries);
  tables.rows = take<Row>(memory, bytes, entries);
  tables.segments = take<Segment>(memory, bytes, entries * leaves);
  tables.gradients = take<Gradient>(memory, bytes, entries * leaves);
  tables.tiles = take<Tile>(memory, bytes, tiles);
}

void add_leaf(Batch& batch, Leaf leaf) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  const int64_t tiles = tiles_of_entry(leaf.count, tile_elements(batch.param_bytes));
  if (batch.leaf_count == most_leaves || batch.entries * (batch.leaf_count + 1) > most || tiles > most)
    throw std::invalid_argument("flatstep: a step has more leaves, entries or elements than one call can take");
  leaf.first_tile = batch.tile_count;
  batch.tile_count += batch.entries * tiles;
  batch.leaves[batch.leaf_count++] = leaf;
}

int64_t workspace_bytes(const Kernel& kernel, const std::vector<int64_t>& counts, int64_t entries) {
  int64_t tiles = 0;
  for (const int64_t count : counts) tiles += entries * tiles_of_entry(count, kernel.tile_elements);
  return Workspace(nullptr, entries, int64_t(counts.size()), tiles, kernel.coefficient_bytes).bytes;
}

void step_batch(const Launcher& launcher, LayOut lay_out, int layout, const Batch& batch, char* memory, void* stream) {
  const Tables tables =
      Workspace(memory, batch.entries, batch.leaf_count, batch.tile_count, launcher.kernel(layout).coefficient_bytes)
          .tables;
  lay_out(batch, tables, stream);
  launcher.check(layout, "the tables of ");
  launcher.launch(
      layout, {tables.rows, batch.entries, tables.scalars, nullptr, 0, tables.coefficients, nullptr},
      {tables.tiles, batch.tile_count, tables.segments, tables.gradients, nullptr, tables.coefficients, nullptr},
      stream);
}

}  // namespace flatstep::device
