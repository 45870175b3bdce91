// Many tensors -> one launch: the tables that a sweep reads, and how tensors are cut into tiles. PODs and index
// arithmetic, the same on the host and on the device. Included by everything in this folder; knows no CUDA.
#pragma once

#include <type_traits>
#include <vector>

#include "call.h"
#include "device.h"
#include "host_device.h"

namespace flatstep::device {

constexpr int lanes = 32;            // threads that share a tile: a warp
constexpr int tile_elements = 1024;  // of one tensor; a multiple of every phase
constexpr int phases = 64;           // tiles begin where a parameter's address is a multiple of this number of elements
constexpr int block_threads = 256;

// Rows of tables that a thread reads whole have the alignment of its largest loads, which is also that of each table.
constexpr int table_alignment = 16;

// One tensor, as long as it stays where it is.
struct alignas(table_alignment) Segment {
  int64_t count;
  void* param;
  void* state[max_slots];
  int32_t row;  // of coefficients
  int32_t makes_update;
};

// A gradient, which may lie elsewhere at every step.
struct alignas(table_alignment) Gradient {
  const void* data;
  int64_t walk;  // where in the table of walks its shape and strides stand; -1 where it lies as its parameter does
};

// Some elements of one segment: those from index * tile_elements - phase on that it has.
struct alignas(8) Tile {
  int32_t segment;
  int32_t index;
};

// What a sweep is launched with.
struct Sweep {
  const Tile* tiles;
  int64_t tile_count;
  const Segment* segments;
  const Gradient* gradients;
  const int64_t* walks;  // each: axes, shape, strides in elements
  const void* coefficients;
  const float* skip;
};

// What the coefficients of some segments are made of.
struct Row {
  int64_t scalars;
  DeviceNumber count;
  int64_t moves_count;  // 0 where an earlier part of the step has done so
};

// Whoever compares the tables of two steps compares bytes.
static_assert(std::has_unique_object_representations_v<Segment> && std::has_unique_object_representations_v<Row> &&
              std::has_unique_object_representations_v<Gradient> && std::has_unique_object_representations_v<Traced>);

// What makes the coefficients of a sweep.
struct Preparation {
  const Row* rows;
  int64_t row_count;
  const Scalars* scalars;
  const Traced* traced;
  int64_t traced_count;
  void* coefficients;
  const float* skip;
};

// How many elements after such an address a parameter begins.
FLATSTEP_FN int phase_of(const void* param, int item_bytes) {
  return int(reinterpret_cast<uintptr_t>(param) / uintptr_t(item_bytes) % phases);
}

// The first element of a tile; below zero where the segment begins inside of the tile.
FLATSTEP_FN int64_t tile_begin(const Tile& tile, int phase) { return int64_t(tile.index) * tile_elements - phase; }

// How many tiles a segment is cut into.
FLATSTEP_FN int64_t tiles_of(int64_t count, int phase) { return (count + phase + tile_elements - 1) / tile_elements; }

inline void add_tiles(std::vector<Tile>& tiles, int32_t segment, int64_t count, int phase) {
  const int64_t last = tiles_of(count, phase);
  for (int64_t index = 0; index < last; ++index) tiles.push_back({segment, int32_t(index)});
}

inline int64_t blocks_for(int64_t threads) { return (threads + block_threads - 1) / block_threads; }

}  // namespace flatstep::device
