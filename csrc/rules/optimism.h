// The optimistic step (Daskalakis et al., 2018), from a direction and the previous one. Included by optimistic rules.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// u = (alpha + beta) r - beta previous: the direction, and how it changed. The first step has no previous one and
// takes u = alpha r.
template <class T>
struct Optimism {
  T of_r, of_previous;

  FLATSTEP_FN Optimism(double alpha, double beta, const Scalars& s)
      : of_r(T(s.is_initial_step != 0 ? alpha : alpha + beta)), of_previous(T(s.is_initial_step != 0 ? 0.0 : beta)) {}

  template <class V>
  FLATSTEP_FN V operator()(V r, V previous) const {
    const V u = of_r * r;
    return select(of_previous != 0, u - of_previous * previous, u);
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
