// Carries out a batch on a device, in memory that the caller lends. Knows no CUDA: see runtime.h.
#pragma once

#include "batch.h"
#include "launch.h"

namespace flatstep::device {

// Adds a leaf and says which tiles are its own. Throws std::invalid_argument where there is no more room.
void add_leaf(Batch& batch, Leaf leaf);

// How many bytes a step of these leaves needs; `count` elements of each lie in every entry.
int64_t workspace_bytes(const Kernel& kernel, const std::vector<int64_t>& counts, int64_t entries);

// Three launches: tables, coefficients, sweep. Allocates nothing, waits for nothing. `memory` is on the device, at a
// multiple of 16 bytes.
void step_batch(const Launcher& launcher, LayOut lay_out, int layout, const Batch& batch, char* memory, void* stream);

}  // namespace flatstep::device
