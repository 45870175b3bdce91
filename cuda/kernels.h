// The table of what a device can launch: PODs and pointers to functions. Stamped out by stamp.cuh.
#pragma once

#include "batch.h"
#include "device_norm.h"

namespace flatstep::device {

// One cell of Rule x Layout. Without launches where the rule does not fit the layout.
struct Kernel {
  void (*load)();  // both, by Runtime::load, so that no launch fails for want of it
  void (*launch_preparation)(const Preparation&, void* stream);
  void (*launch_sweep)(const Sweep&, void* stream);
  int64_t coefficient_bytes;  // of one row
  int tile_elements;
};

using Kernels = const Kernel* const*;  // [rule][layout], both counted as in catalog.h

// What all rules share: a norm in three launches, one after the other, and zeros in the place of gradients where a step
// was skipped.
struct SharedKernels {
  void (*load)();  // all of them, by Runtime::load
  void (*launch_units)(const Norm&, void* stream);
  void (*launch_groups)(const Norm&, void* stream);
  void (*launch_rest)(const Norm&, void* stream);
  void (*launch_zeros)(const Sweep&, int tile_elements, void* stream);
};

// Fills the tables of a batch, whatever its kernel.
using LayOut = void (*)(const Batch&, const Tables&, void* stream);

}  // namespace flatstep::device
