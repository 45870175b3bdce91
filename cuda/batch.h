// A step whose tables are made on the device: leaves of one layout and one length in every entry of a batch, small
// enough to be a kernel's arguments. Nothing is uploaded, so that a captured step can be replayed. PODs and
// index arithmetic.
#pragma once

#include "segments.h"

namespace flatstep::device {

constexpr int most_leaves = 32;
constexpr int most_numbers = scalar_count + max_hyperparameters;  // the doubles of Scalars

// One tensor of every entry: entry after entry in memory.
struct Leaf {
  int64_t count;       // elements of an entry
  int64_t first_tile;  // of the first entry
  void* param;
  const void* grad;
  void* state[max_slots];
};

// A number that differs from entry to entry: an array, one an entry.
struct Column {
  DeviceNumber first;
  int32_t number;  // as in Traced
};

struct Batch {
  int64_t entries, tile_count;
  int32_t leaf_count, column_count;
  int32_t param_bytes, grad_bytes, state_bytes[max_slots];  // of an element
  int32_t makes_update;
  Scalars scalars;        // but for the columns and the counts
  const int32_t* counts;  // of steps, the present one included, one an entry
  Column columns[most_numbers];
  Leaf leaves[most_leaves];
};

// The tables that a preparation and a sweep read. Segments and gradients: for each leaf those of all entries.
struct Tables {
  Scalars* scalars;
  Row* rows;
  Segment* segments;
  Gradient* gradients;
  Tile* tiles;
  void* coefficients;
};

static_assert(sizeof(Batch) + sizeof(Tables) <= 4096, "a kernel takes no more arguments");

// How many tiles one entry of a leaf is cut into, wherever it begins: the last one may have nothing to do.
FLATSTEP_FN int64_t tiles_of_entry(int64_t count, int elements) { return tiles_of(count, phases - 1, elements); }

// As many as the longest table has rows.
inline int64_t threads_of(const Batch& batch) {
  const int64_t segments = batch.entries * batch.leaf_count;
  return segments < batch.tile_count ? batch.tile_count : segments;
}

// Where the tables are, one after the other, from `memory` on, and how many bytes they take.
struct Workspace {
  Tables tables;
  int64_t bytes;

  Workspace(char* memory, int64_t entries, int64_t leaves, int64_t tiles, int64_t coefficient_bytes);
};

}  // namespace flatstep::device
