// The table of what a device can launch: PODs and pointers to functions. Stamped out by stamp.cuh.
#pragma once

#include "batch.h"

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

// Fills the tables of a batch, whatever its kernel.
using LayOut = void (*)(const Batch&, const Tables&, void* stream);

}  // namespace flatstep::device
