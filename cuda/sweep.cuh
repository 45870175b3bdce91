// The same load -> update -> store as on the CPU, written for one of the threads that share a tile, a lane: 16 bytes of
// each operand at a time. Lanes share nothing, so that the host can carry them out one by one. Included by target.cu,
// and by the tests' stand-in for a device.
#pragma once

#include <utility>  // std::index_sequence

#include "averaging.h"
#include "catalog.h"
#include "conversions.cuh"
#include "formats/f32.h"
#include "formats/f64.h"
#include "quads.cuh"
#include "segments.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Numbers of one stream in registers: whole quads.
template <class Format, int count>
struct Pack {
  using Storage = typename Format::Storage;
  static constexpr int quads = count * int(sizeof(Storage)) / int(sizeof(Quad));

  alignas(16) Storage numbers[count];

  FLATSTEP_FN void load(const void* from) {
    Quad loaded[quads];
    for (int k = 0; k < quads; ++k) loaded[k] = load_quad(from, k);
    __builtin_memcpy(numbers, loaded, sizeof numbers);
  }

  // From where no multiple of 16 bytes is.
  FLATSTEP_FN void load_each(const void* from) {
    for (int k = 0; k < count; ++k) numbers[k] = load_number(static_cast<const Storage*>(from) + k);
  }

  FLATSTEP_FN void store(void* to) const {
    Quad stored[quads];
    __builtin_memcpy(stored, numbers, sizeof numbers);
    for (int k = 0; k < quads; ++k) store_quad(to, k, stored[k]);
  }

  FLATSTEP_FN DeviceTile<Format> tile() { return {numbers, 0}; }
};

// A flag of which the compiler cannot tell that it is the same in every pass of a loop: nvcc made two loops of one.
FLATSTEP_FN bool in_this_pass(int32_t flag) {
#ifdef __CUDA_ARCH__
  asm volatile("mov.b32 %0, %0;" : "+r"(flag));
#endif
  return flag;
}

// The pack of a slot, told from those of other slots with the same format.
template <int slot, class Format, int count>
struct SlotPack : Pack<Format, count> {};

// The format in which steps compute.
template <class T>
using ComputedFormat = std::conditional_t<sizeof(T) == sizeof(double), F64, F32>;

// The averages of a tile, in one of two formats.
template <class Own, class Computed>
struct AverageTile {
  using T = typename Computed::Compute;

  void* numbers;
  int32_t are_own;

  // From number k on, `count` of them, which are whole quads if there are several.
  template <int count, class Params>
  FLATSTEP_FN void go_on(int k, const Averaging<T>& averaging, const Params& params) const {
    T values[count];
    if (in_this_pass(are_own)) {
      load<Own>(k, values);
    } else {
      load<Computed>(k, values);
    }
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = averaging(values[i], params.load(i));
    if (in_this_pass(are_own)) {
      store<Own>(k, values);
    } else {
      store<Computed>(k, values);
    }
  }

 private:
  template <class Format>
  FLATSTEP_FN typename Format::Storage* at(int k) const {
    return static_cast<typename Format::Storage*>(numbers) + k;
  }

  template <class Format, int count>
  FLATSTEP_FN void load(int k, T (&values)[count]) const {
    if constexpr (count == 1) {
      values[0] = DeviceTile<Format>(numbers, k).load(0);
    } else {
      Pack<Format, count> pack;
      pack.load(at<Format>(k));
#pragma unroll
      for (int i = 0; i < count; ++i) values[i] = pack.tile().load(i);
    }
  }

  template <class Format, int count>
  FLATSTEP_FN void store(int k, const T (&values)[count]) const {
    if constexpr (count == 1) {
      DeviceTile<Format>(numbers, k).store(0, values[0]);
    } else {
      Pack<Format, count> pack;
#pragma unroll
      for (int i = 0; i < count; ++i) pack.tile().store(i, values[i]);
      pack.store(at<Format>(k));
    }
  }
};

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
  static constexpr int quads = count * (bytes<Param> + bytes<Grad> + (bytes<Slot<slot>> + ...)) / int(sizeof(Quad));

  // Where the operands lie at a tile's begin, whether or not the tensor has the element there. Offsets from here on are
  // small numbers, so that they take one register each.
  void* param;
  const void* grad;
  void* state[sizeof...(slot)];
  bool makes_update;
  int32_t zeroes;  // whether gradients become zero, once they are read
  const typename R::template Coefficients<T>& coefficients;

  FLATSTEP_FN Lane(const device::Segment& segment, const device::Gradient& gradient, int64_t begin, int32_t zeroes,
                   const typename R::template Coefficients<T>& coefficients)
      : param(shift<Param>(segment.param, begin)),
        grad(shift<Grad>(gradient.data, gradient.walk < 0 ? begin : 0)),
        state{shift<Slot<slot>>(segment.state[slot], begin)...},
        makes_update(segment.makes_update),
        zeroes(zeroes),
        coefficients(coefficients) {}

  // Elements low <= k < high of a tile. A walk says where a strided gradient has them, the first one's place being
  // `begin`.
  FLATSTEP_FN void update(int64_t begin, const int64_t* walk, int low, int high, int lane, int lanes) const {
    if (is_by_element(walk)) {
#pragma unroll 1
      for (int k = low + lane; k < high; k += lanes) update_one(k, walk ? walk_to(walk, begin + k) : k);
      return;
    }
    const bool grad_is_quad = is_quad(grad);
    for (int k = lane * count; k < high; k += lanes * count) {
      if (k >= low && k + count <= high) {
        update_pack(k, grad_is_quad);
      } else {
#pragma unroll 1
        for (int i = k < low ? low : k; i < k + count && i < high; ++i) update_one(i, i);
      }
    }
  }

  // Zeros in the place of the gradients that this lane has read in packs; `update` leaves them, for fewer instructions.
  FLATSTEP_FN void zero_packs(const int64_t* walk, int low, int high, int lane, int lanes) const {
    if (is_by_element(walk)) return;
    const bool grad_is_quad = is_quad(grad);
#pragma unroll 1
    for (int k = lane * count; k < high; k += lanes * count) {
      if (k < low || k + count > high) continue;
      constexpr int quads = Pack<Grad, count>::quads;
#pragma unroll 1
      for (int i = 0; i < (grad_is_quad ? quads : count); ++i) {
        if (grad_is_quad) {
          store_quad(at<Grad>(grad, k), i, Quad{});
        } else {
          reinterpret_cast<typename Grad::Storage*>(at<Grad>(grad, k))[i] = 0;
        }
      }
    }
  }

  // The averages of the elements that this lane has updated.
  FLATSTEP_FN void average(const device::SweepTail& tail, void* averages, int64_t updates, int64_t begin,
                           const int64_t* walk, int low, int high, int lane, int lanes) const {
    const Averaging<T> averaging({nullptr, 0, AverageForm(tail.form), tail.decay}, updates);
    const AverageTile<Param, ComputedFormat<T>> own{
        tail.average_in_own_dtype ? shift<Param>(averages, begin) : shift<ComputedFormat<T>>(averages, begin),
        tail.average_in_own_dtype};
    const int size = is_by_element(walk) ? 1 : count;
    const bool are_packs = size == count && is_quad(own.numbers);
#pragma unroll 1
    for (int k = size == 1 ? low + lane : lane * size; k < high; k += lanes * size) {
      if (are_packs && k >= low && k + count <= high) {
        Pack<Param, count> params;
        params.load(at<Param>(param, k));
        own.template go_on<count>(k, averaging, params.tile());
      } else {
#pragma unroll 1
        for (int i = k < low ? low : k; i < k + size && i < high; ++i)
          own.template go_on<1>(i, averaging, DeviceTile<Param>(param, i));
      }
    }
  }

 private:
  // Whether a lane's elements are every lanes-th one of a tile, or packs.
  FLATSTEP_FN bool is_by_element(const int64_t* walk) const { return walk || !(is_quad(state[slot]) && ...); }

  template <class Format>
  FLATSTEP_FN static void* shift(const void* memory, int64_t elements) {
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(memory) + uintptr_t(elements * bytes<Format>));
  }

  // Where an operand has element k of the tile. Unsigned, as the sum then takes one instruction less.
  template <class Format>
  FLATSTEP_FN static char* at(const void* operand, int k) {
    return const_cast<char*>(static_cast<const char*>(operand)) + uint32_t(k * bytes<Format>);
  }

  FLATSTEP_FN void update_one(int k, int64_t grad_at) const {
    const DeviceTile<Param> params(param, k);
    const DeviceTile<Grad> grads(const_cast<void*>(grad), grad_at);
    const T g = grads.load(0);
    if (in_this_pass(zeroes)) *grads.numbers = 0;
    T p = makes_update ? T(-0.0) : params.load(0);
    T values[] = {DeviceTile<Slot<slot>>(state[slot], k).load(0)...};
    R::update(p, g, values, coefficients);
    params.store(0, p);
    (DeviceTile<Slot<slot>>(state[slot], k).store(0, values[slot]), ...);
  }

  // Of parameter and state, 16 bytes at a time. A gradient may lie otherwise, as in a bucket with others: it is then
  // read number by number.
  FLATSTEP_FN void update_pack(int first, bool grad_is_quad) const {
    Pack<Param, count> params;
    Pack<Grad, count> grads;
    struct : SlotPack<slot, Slot<slot>, count>... {
    } slots;
    params.load(at<Param>(param, first));
    (slots.SlotPack<slot, Slot<slot>, count>::load(at<Slot<slot>>(state[slot], first)), ...);
    if (grad_is_quad) {
      grads.load(at<Grad>(grad, first));
    } else {
      grads.load_each(at<Grad>(grad, first));
    }
#pragma unroll
    for (int k = 0; k < count; ++k) {
      T p = makes_update ? T(-0.0) : params.tile().load(k);
      T values[] = {slots.SlotPack<slot, Slot<slot>, count>::tile().load(k)...};
      R::update(p, grads.tile().load(k), values, coefficients);
      params.tile().store(k, p);
      (slots.SlotPack<slot, Slot<slot>, count>::tile().store(k, values[slot]), ...);
    }
    params.store(at<Param>(param, first));
    (slots.SlotPack<slot, Slot<slot>, count>::store(at<Slot<slot>>(state[slot], first)), ...);
  }
};

// How many blocks a multiprocessor is to have room for: of its 65,536 registers a thread then has 80, 96 or 128. More
// blocks hide more of what memory takes, but where a lane holds more quads than here ptxas would spill.
template <class R, class L>
constexpr int blocks_at_once() {
  constexpr int quads = Lane<R, L>::quads;
  if (sizeof(typename L::Compute) == sizeof(double)) return quads <= 5 ? 5 : 4;
  return quads <= 5 ? 6 : quads <= 9 ? 5 : 4;
}

// The elements of one tile: low <= k < high, the first one's place in its tensor being `begin`.
struct TileElements {
  int64_t begin;
  int low, high;

  FLATSTEP_FN TileElements(const device::Tile& tile, const device::Segment& segment, int elements)
      : begin(device::tile_begin(tile, device::phase_of(segment.param, device::tile_bytes / elements), elements)),
        low(begin < 0 ? int(-begin) : 0),
        high(segment.count - begin < elements ? int(segment.count - begin) : elements) {}
};

FLATSTEP_FN const int64_t* walk_of(const device::Sweep& sweep, const device::Gradient& gradient) {
  return gradient.walk < 0 ? nullptr : sweep.walks + gradient.walk;
}

// Which of the lanes of a tile a thread is.
struct LaneOfTile {
  int64_t tile;
  int lane, lanes;
};

// What a lane does for its tile besides, after its own updates. The tables are read again: kept in registers, their
// rows would take those of the update.
template <Rule R, class L>
FLATSTEP_FN void finish_lane(const device::Sweep& sweep, const LaneOfTile& at) {
  const device::Tile tile = sweep.tiles[at.tile];
  const auto segment = load_row<device::Segment>(sweep.segments, tile.segment);
  const auto gradient = load_row<device::Gradient>(sweep.gradients, tile.segment);
  const TileElements own(tile, segment, device::tile_elements(sizeof(typename L::Param::Storage)));
  const int64_t* const walk = walk_of(sweep, gradient);
  const auto unused = load_row<typename R::template Coefficients<typename L::Compute>>(sweep.coefficients, segment.row);
  const Lane<R, L> all(segment, gradient, own.begin, 0, unused);
  if (sweep.tail.zeroed_bytes) all.zero_packs(walk, own.low, own.high, at.lane, at.lanes);
  void* const average = sweep.tail.averages ? sweep.tail.averages[tile.segment] : nullptr;
  if (!average) return;
  all.average(sweep.tail, average, sweep.tail.updates[segment.row], own.begin, walk, own.low, own.high, at.lane,
              at.lanes);
}

// What one lane does for one tile. `where()` says which it is; it is asked again, as that takes no registers meanwhile.
template <Rule R, class L, class Where>
FLATSTEP_FN void sweep_lane(const device::Sweep& sweep, const Where& where) {
  const LaneOfTile at = where();
  if (at.tile >= sweep.tile_count) return;
  const device::Tile tile = sweep.tiles[at.tile];
  const auto segment = load_row<device::Segment>(sweep.segments, tile.segment);
  const auto gradient = load_row<device::Gradient>(sweep.gradients, tile.segment);
  if (sweep.skip && *sweep.skip != 0) return;  // asked here, so that the tables' rows are on their way meanwhile
  const auto coefficients =
      load_row<typename R::template Coefficients<typename L::Compute>>(sweep.coefficients, segment.row);
  const TileElements own(tile, segment, device::tile_elements(sizeof(typename L::Param::Storage)));
  Lane<R, L>(segment, gradient, own.begin, sweep.tail.zeroed_bytes, coefficients)
      .update(own.begin, walk_of(sweep, gradient), own.low, own.high, at.lane, at.lanes);
  if (sweep.tail.zeroed_bytes || sweep.tail.averages) finish_lane<R, L>(sweep, where());
}

template <class Storage>
FLATSTEP_FN void zero_elements(void* grad, int64_t begin, const int64_t* walk, int low, int high, int lane, int lanes) {
  for (int k = low + lane; k < high; k += lanes)
    static_cast<Storage*>(grad)[walk ? walk_to(walk, begin + k) : begin + k] = 0;
}

// The same for a step that was skipped, of any rule: gradients that are to become zero do.
FLATSTEP_FN void zero_lane(const device::Sweep& sweep, int tile_elements, const LaneOfTile& at) {
  if (at.tile >= sweep.tile_count || *sweep.skip == 0) return;
  const device::Tile tile = sweep.tiles[at.tile];
  const device::Segment segment = sweep.segments[tile.segment];
  const device::Gradient gradient = sweep.gradients[tile.segment];
  const TileElements own(tile, segment, tile_elements);
  const int64_t* const walk = walk_of(sweep, gradient);
  void* const grad = const_cast<void*>(gradient.data);
  switch (sweep.tail.zeroed_bytes) {
    case 2: return zero_elements<uint16_t>(grad, own.begin, walk, own.low, own.high, at.lane, at.lanes);
    case 4: return zero_elements<uint32_t>(grad, own.begin, walk, own.low, own.high, at.lane, at.lanes);
    case 8: return zero_elements<uint64_t>(grad, own.begin, walk, own.low, own.high, at.lane, at.lanes);
  }
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
