// The whole boundary between those who ask for a step and the kernels that carry it out: PODs, no functions.
// All files may include it; it includes none.
#pragma once

#include <cstdint>

namespace flatstep {

constexpr int max_slots = 5;
constexpr int max_hyperparameters = 16;
constexpr int cache_line = 64;  // bytes

// The numbers of one step, common to every leaf that agrees on them. Flags are 0 or 1: `prepare` folds them away.
struct Scalars {
  int64_t count;  // t: this leaf's updates, the present one included; starts at 1
  double learning_rate;
  double grad_scale;
  double weight_decay;
  double decoupled_weight_decay;
  double maximize;
  double is_initial_step;                       // whether there is no previous step to look back at
  double hyperparameters[max_hyperparameters];  // the rule's own, in the order in which it names them
};

// The doubles that all rules have, by name. All front ends and devices count numbers in this order, hyperparameters
// after them; a row of Python numbers has the count in front, and no is_initial_step.
struct CommonScalar {
  const char* name;
  double Scalars::* member;
};

constexpr CommonScalar common_scalars[] = {
    {"learning_rate", &Scalars::learning_rate}, {"grad_scale", &Scalars::grad_scale},
    {"weight_decay", &Scalars::weight_decay},   {"decoupled_weight_decay", &Scalars::decoupled_weight_decay},
    {"maximize", &Scalars::maximize},           {"is_initial_step", &Scalars::is_initial_step}};
constexpr int scalar_count = sizeof common_scalars / sizeof *common_scalars;

// How to visit a strided gradient in the order in which its parameter lies in memory: outermost axis first, strides in
// elements.
struct Walk {
  int axes;
  const int64_t* shape;
  const int64_t* strides;
};

struct Tail;  // see tail.h

// One tensor. `first` is its place in the call's numbering of elements, in which tensors follow each other without
// gaps.
struct Segment {
  int64_t first;
  int64_t count;
  int64_t scalars;  // index into Call::scalars
  void* param;
  const void* grad;
  const Walk* walk;  // null where the gradient lies in memory as the parameter does
  void* state[max_slots];
  bool makes_update = false;  // param is where the gradient is, or as long, and is given what a step would add to it
  void* average = nullptr;    // of the parameter, for the call's tail; null: none
};

struct Call {
  const Segment* segments;  // in order of `first`, none of them empty
  int64_t segment_count;
  const Scalars* scalars;
  const Tail* tail = nullptr;  // what is done besides the update; null: nothing
};

// A serial sweep over the elements first <= i < last of a call. Who splits the range is not its business.
using Kernel = void (*)(const Call&, int64_t first, int64_t last) noexcept;

using FinishTile = void (*)(const Tail&, const Segment&, int64_t updates, int64_t first, int count) noexcept;

// A place to run: kernels[rule][layout], counted as in catalog.h and layouts.h; null where the rule does not fit the
// layout. For benchmarks, limits[slots][variant] moves the bytes of a step with that number of 4-byte slots and
// computes nothing. Variant 0 does not prefetch; variant 1 prefetches as kernels do. norms[kind][dtype] finds the norms
// of gradients block by block (norm_blocks.h), counted as NormKind and Dtype are.
// tails[dtype][variant] finishes a tile whose parameter has the dtype. Variant 0 has averages in the dtype in which
// steps compute, variant 1 in the parameter's own.
struct Target {
  const char* name;
  const Kernel* const* kernels;
  const Kernel (*limits)[2];
  const Kernel* const* norms;
  const FinishTile (*tails)[2];
};

}  // namespace flatstep
