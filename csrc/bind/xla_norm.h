// The norm of gradients for XLA: three handlers, whose results are put together by flatstep.jax. For xla_step.cpp.
#pragma once

#include <xla/ffi/api/ffi.h>

#include "core_api.h"

namespace flatstep {

// Sums of squares are uint32 arrays whose last axis is that of a NormBlock's words: JAX has no float64 by default.
//
// square_sums: the scale and gradients -> a sum for each. The scale has the shape of the batch, whose axes are the
// first of all operands, and of all results but for add_sums. add_sums: one array of sums -> the sum in pairs over its
// first axis. limits: the scale, max_norm if `limit` says so, and arrays of sums -> the scale to step with, and whether
// all numbers are finite.
extern XLA_FFI_Handler* const xla_square_sums;
extern XLA_FFI_Handler* const xla_add_sums;
extern XLA_FFI_Handler* const xla_limits;

void set_core_of_norms(const CoreAPI& core);

}  // namespace flatstep
