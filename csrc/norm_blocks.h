// What a kernel finds out about a block of a gradient, how long blocks are, and what follows from a norm. Included by
// norm.h, by device.h and by targets.
#pragma once

#include "host_device.h"

namespace flatstep {

constexpr int norm_block = 1024;  // numbers, in the C order of the gradient's shape
constexpr int norm_lanes = 16;    // partial sums of a block

enum class NormKind { two, largest };

struct NormBlock {
  double value;  // the sum of squares, or the largest magnitude
  double check;  // 0 if all numbers are finite, else NaN
};

enum class ClipFormula { optax, torch };

}  // namespace flatstep

namespace flatstep::inline FLATSTEP_NAMESPACE {

// By which gradients of this norm are multiplied, as optax.clip_by_global_norm or torch's clip_grad_norm_ have it.
FLATSTEP_FN double clip_factor(ClipFormula formula, double max_norm, double norm) {
  if (formula == ClipFormula::optax) return norm <= max_norm ? 1 : max_norm / norm;
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1 ? 1 : factor;  // NaN stays, as in torch
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
