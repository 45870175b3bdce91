// The optimistic step (Daskalakis et al., 2018), from a direction and the previous one. Included by optimistic rules.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// u = (alpha + beta) r - beta previous: the direction, and how it changed. The first step has no previous one and
// takes u = alpha r.
template <class T>
struct Optimism {
  T of_r, of_previous;

  FLATSTEP_FN Optimism(double alpha, double beta, int64_t t)
      : of_r(T(t > 1 ? alpha + beta : alpha)), of_previous(T(t > 1 ? beta : 0.0)) {}

  FLATSTEP_FN T operator()(T r, T previous) const {
    const T u = of_r * r;
    return of_previous != 0 ? u - of_previous * previous : u;
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
