// Many tensors -> one launch: the tables that a sweep reads, and how tensors are cut into tiles. PODs and index
// arithmetic, the same on the host and on the device. Included by everything in this folder; knows no CUDA.
#pragma once

#include <type_traits>
#include <vector>

#include "call.h"
#include "device.h"
#include "host_device.h"
#include "tail.h"

namespace flatstep::device {

constexpr int warp_bits = 5;        // 32 threads
constexpr int block_threads = 128;  // of larger blocks, more registers would be left that make no whole one
constexpr int tile_bytes = 4096;    // of a parameter: a warp's loop then comes round up to eight times
constexpr int phases = 64;          // tiles begin where a parameter's address is a multiple of this number of elements

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

// Some elements of one segment: those from index * tile_elements(item_bytes) - phase on, as far as it has them.
struct alignas(8) Tile {
  int32_t segment;
  int32_t index;
};

// What a sweep does besides its updates.
struct SweepTail {
  int32_t zeroed_bytes;  // as in Tail, and so are the next ones
  int32_t form;
  int32_t average_in_own_dtype;
  double decay;
  void* const* averages;   // by segment; null: no parameter has one
  const int64_t* updates;  // by row of coefficients, the present one included; made where there are averages
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
  SweepTail tail = {};
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
  const double* factor = nullptr;  // of all gradients; null: 1
  int64_t* updates = nullptr;      // by row, for the sweep's tail; null: it needs none
};

// How many elements a tile of one tensor has: a multiple of every phase.
FLATSTEP_FN constexpr int tile_elements(int item_bytes) { return tile_bytes / item_bytes; }

// How many elements after such an address a parameter begins.
FLATSTEP_FN int phase_of(const void* param, int item_bytes) {
  return int(reinterpret_cast<uintptr_t>(param) / uintptr_t(item_bytes) % phases);
}

// The first element of a tile; below zero where the segment begins inside of the tile.
FLATSTEP_FN int64_t tile_begin(const Tile& tile, int phase, int elements) {
  return int64_t(tile.index) * elements - phase;
}

// How many tiles a segment is cut into.
FLATSTEP_FN int64_t tiles_of(int64_t count, int phase, int elements) {
  return (count + phase + elements - 1) / elements;
}

inline void add_tiles(std::vector<Tile>& tiles, int32_t segment, int64_t count, int phase, int elements) {
  const int64_t last = tiles_of(count, phase, elements);
  for (int64_t index = 0; index < last; ++index) tiles.push_back({segment, int32_t(index)});
}

// How many threads share a tile, as a power of two: those of a warp, or more where the device then still has room for
// all threads at once. A small step takes as long as one thread's loop, which is shorter the more threads share a tile.
// A multiprocessor has room for 512 threads at least.
inline int lane_bits_for(int64_t tile_count, int multiprocessors) {
  constexpr int most = 8;  // a tile's loop then comes round once
  int bits = warp_bits;
  while (bits < most && tile_count << (bits + 1) <= int64_t(multiprocessors) * 512) ++bits;
  return bits;
}

inline int64_t blocks_for(int64_t threads) { return (threads + block_threads - 1) / block_threads; }

}  // namespace flatstep::device
