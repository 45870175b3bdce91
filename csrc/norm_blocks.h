// What a kernel finds out about a block of a gradient, and how long blocks are. Included by norm.h and by targets.
#pragma once

namespace flatstep {

constexpr int norm_block = 1024;  // numbers, in the C order of the gradient's shape
constexpr int norm_lanes = 16;    // partial sums of a block

enum class NormKind { two, largest };

struct NormBlock {
  double value;  // the sum of squares, or the largest magnitude
  double check;  // 0 if all numbers are finite, else NaN
};

}  // namespace flatstep
