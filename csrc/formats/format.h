// The Format concept, and the Layout that gives each stream of a step its format. Included by formats and sweeps.
#pragma once

#include <type_traits>  // std::is_same_v, which leaves no symbol behind

#include "../rules/rule.h"

// A Format is how one stream of numbers is stored:
//
//   name       the dtype's name in Python
//   Compute    the type in which a rule works on it
//   Storage    the type of one stored number
//   Tile       numbers of a stream, opened at (memory, index of the first):
//              load(k) -> Compute, store(k, Compute)
//
// A tile is opened once for its numbers, so a format may hold there what they share (the scale of a block, say). A
// format that stores what it computes reads and writes memory directly: a copy of the tile would cost more than the
// sum.

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Numbers stored as they are computed.
template <class T>
struct Plain {
  using Compute = T;
  using Storage = T;

  struct Tile {
    T* numbers;

    FLATSTEP_FN Tile(void* memory, int64_t first) : numbers(static_cast<T*>(memory) + first) {}
    FLATSTEP_FN T load(int k) const { return numbers[k]; }
    FLATSTEP_FN void store(int k, T value) const { numbers[k] = value; }
  };
};

// Numbers of 16 bits, which a format widens from the upper half of 32 and narrows to there, one or a vector of them:
//
//   decode(bits) -> value     of the lower half's zeros
//   encode(value) -> bits     the lower half is left over
template <class Format>
struct HalfTile {
  uint16_t* numbers;

  FLATSTEP_FN HalfTile(void* memory, int64_t first) : numbers(static_cast<uint16_t*>(memory) + first) {}
  FLATSTEP_FN float load(int k) const { return Format::decode(uint32_t(numbers[k]) << 16); }
  FLATSTEP_FN void store(int k, float value) const { numbers[k] = uint16_t(Format::encode(value) >> 16); }
};

// The formats of one kernel's streams.
template <class ParamFormat, class GradFormat, class FirstMoment, class SecondMoment>
struct Layout {
  using Param = ParamFormat;
  using Grad = GradFormat;
  using Compute = typename ParamFormat::Compute;

  template <Role role, class = void>
  struct Of {
    using type = Param;
  };
  template <class Unused>
  struct Of<Role::first_moment, Unused> {
    using type = FirstMoment;
  };
  template <class Unused>
  struct Of<Role::second_moment, Unused> {
    using type = SecondMoment;
  };
  template <Role role>
  using Slot = typename Of<role>::type;

  static constexpr bool state_as_computed =
      sizeof(typename Param::Storage) == sizeof(Compute) &&
      sizeof(typename FirstMoment::Storage) == sizeof(typename FirstMoment::Compute) &&
      sizeof(typename SecondMoment::Storage) == sizeof(typename SecondMoment::Compute);
};

// Whether there is a kernel of rule R on layout L. Of layouts that differ only in a moment that the rule does not have,
// one is enough: where the first moment is missing, the one that stores it as the second; where the second is, as the
// parameter.
template <class R, class L>
constexpr bool fits =
    (L::state_as_computed || !needs_state_as_computed<R>) &&
    (has_slot<R>(Role::first_moment) ||
     std::is_same_v<typename L::template Slot<Role::first_moment>, typename L::template Slot<Role::second_moment>>) &&
    (has_slot<R>(Role::second_moment) ||
     std::is_same_v<typename L::template Slot<Role::second_moment>, typename L::Param>);

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
