// The same load -> update -> store as on the CPU, written for one lane of a warp: 16 bytes of each stream at a time.
// Lanes share nothing, so that the host can carry them out one by one. Included by target.cu, and by the tests'
// stand-in for a device.
#pragma once

#include <utility>  // std::index_sequence

#include "catalog.h"
#include "conversions.cuh"
#include "quads.cuh"
#include "segments.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Numbers of one stream in registers: whole quads.
template <class Format, int count>
struct Pack {
  using Storage = typename Format::Storage;
  static constexpr int quads = count * int(sizeof(Storage)) / int(sizeof(Quad));

  alignas(16) Storage numbers[count];

  FLATSTEP_FN void load(const void* memory, int64_t first) {
    Quad loaded[quads];
    for (int k = 0; k < quads; ++k) loaded[k] = load_quad(static_cast<const Storage*>(memory) + first, k);
    __builtin_memcpy(numbers, loaded, sizeof numbers);
  }

  FLATSTEP_FN void store(void* memory, int64_t first) const {
    Quad stored[quads];
    __builtin_memcpy(stored, numbers, sizeof numbers);
    for (int k = 0; k < quads; ++k) store_quad(static_cast<Storage*>(memory) + first, k, stored[k]);
  }

  FLATSTEP_FN DeviceTile<Format> tile() { return {numbers, 0}; }
};

// The pack of a slot, told from those of other slots with the same format.
template <int slot, class Format, int count>
struct SlotPack : Pack<Format, count> {};

// Where a strided gradient has the element that comes at this place in its parameter's order.
FLATSTEP_FN int64_t walk_to(const int64_t* walk, int64_t element) {
  const int64_t axes = walk[0];
  const int64_t* const shape = walk + 1;
  const int64_t* const strides = shape + axes;
  int64_t offset = 0;
  for (int64_t axis = axes - 1; axis >= 0; --axis) {
    offset += element % shape[axis] * strides[axis];
    element /= shape[axis];
  }
  return offset;
}

// One lane at work on one segment. `Slots` numbers the slots of the rule.
template <class R, class L, class Slots = std::make_integer_sequence<int, slot_count<R>>>
struct Lane;

template <class R, class L, int... slot>
struct Lane<R, L, std::integer_sequence<int, slot...>> {
  using T = typename L::Compute;
  using Param = typename L::Param;
  using Grad = typename L::Grad;
  template <int index>
  using Slot = typename L::template Slot<R::slots[index].role>;

  template <class Format>
  static constexpr int bytes = sizeof(typename Format::Storage);

  // So many numbers at a time that the narrowest stream moves 16 bytes.
  static constexpr int pack() {
    int narrowest = sizeof(Quad);
    for (const int size : {bytes<Param>, bytes<Grad>, bytes<Slot<slot>>...})
      narrowest = size < narrowest ? size : narrowest;
    return int(sizeof(Quad)) / narrowest;
  }
  static constexpr int count = pack();

  const device::Segment& segment;
  const device::Gradient gradient;
  const int64_t* walks;
  const typename R::template Coefficients<T>& coefficients;

  FLATSTEP_FN void update_tile(const device::Tile& tile, int lane) const {
    const int phase = device::phase_of(segment.param, bytes<Param>);
    const int64_t begin = device::tile_begin(tile, phase), left = segment.count - begin;
    const int end = left < device::tile_elements ? int(left) : device::tile_elements;
    if (is_aligned(phase)) {
      for (int k = lane * count; k < end; k += device::lanes * count) {
        const int64_t first = begin + k;
        if (first >= 0 && first + count <= segment.count) {
          update_pack(first);
        } else {
          update_each(first, first + count);
        }
      }
    } else {
#pragma unroll 1
      for (int k = lane; k < end; k += device::lanes) update_each(begin + k, begin + k + 1);
    }
  }

 private:
  // Whether packs begin at a multiple of 16 bytes in every stream.
  FLATSTEP_FN bool is_aligned(int phase) const {
    const auto lies_alike = [&](const void* memory, int item_bytes) {
      return (reinterpret_cast<uintptr_t>(memory) / uintptr_t(item_bytes) - uintptr_t(phase)) % count == 0;
    };
    return gradient.walk < 0 && lies_alike(gradient.data, bytes<Grad>) &&
           (lies_alike(segment.state[slot], bytes<Slot<slot>>) && ...);
  }

  // Those of first <= i < last that the segment has.
  FLATSTEP_FN void update_each(int64_t first, int64_t last) const {
#pragma unroll 1
    for (int64_t i = first < 0 ? 0 : first; i < last && i < segment.count; ++i) {
      const DeviceTile<Param> param(segment.param, i);
      const int64_t grad_at = gradient.walk < 0 ? i : walk_to(walks + gradient.walk, i);
      const T g = DeviceTile<Grad>(const_cast<void*>(gradient.data), grad_at).load(0);
      T p = segment.makes_update ? T(-0.0) : param.load(0);
      T state[] = {DeviceTile<Slot<slot>>(segment.state[slot], i).load(0)...};
      R::update(p, g, state, coefficients);
      param.store(0, p);
      (DeviceTile<Slot<slot>>(segment.state[slot], i).store(0, state[slot]), ...);
    }
  }

  FLATSTEP_FN void update_pack(int64_t first) const {
    Pack<Param, count> param;
    Pack<Grad, count> grad;
    struct : SlotPack<slot, Slot<slot>, count>... {
    } slots;
    param.load(segment.param, first);
    grad.load(gradient.data, first);
    (slots.SlotPack<slot, Slot<slot>, count>::load(segment.state[slot], first), ...);
#pragma unroll
    for (int k = 0; k < count; ++k) {
      T p = segment.makes_update ? T(-0.0) : param.tile().load(k);
      T state[] = {slots.SlotPack<slot, Slot<slot>, count>::tile().load(k)...};
      R::update(p, grad.tile().load(k), state, coefficients);
      param.tile().store(k, p);
      (slots.SlotPack<slot, Slot<slot>, count>::tile().store(k, state[slot]), ...);
    }
    param.store(segment.param, first);
    (slots.SlotPack<slot, Slot<slot>, count>::store(segment.state[slot], first), ...);
  }
};

// What one lane does for one tile.
template <Rule R, class L>
FLATSTEP_FN void sweep_lane(const device::Sweep& sweep, int64_t tile_index, int lane) {
  if (tile_index >= sweep.tile_count) return;
  const device::Tile tile = sweep.tiles[tile_index];
  const auto segment = load_row<device::Segment>(sweep.segments, tile.segment);
  const auto gradient = load_row<device::Gradient>(sweep.gradients, tile.segment);
  if (sweep.skip && *sweep.skip != 0) return;  // asked here, so that the tables' rows are on their way meanwhile
  const auto coefficients =
      load_row<typename R::template Coefficients<typename L::Compute>>(sweep.coefficients, segment.row);
  Lane<R, L>{segment, gradient, sweep.walks, coefficients}.update_tile(tile, lane);
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
