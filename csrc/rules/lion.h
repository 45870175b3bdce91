// Lion (Chen et al., 2023): steps of one size, along the sign of an average. Used by catalog.h.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct Lion {
  static constexpr const char* name = "lion";
  static constexpr Slot slots[] = {{"mu", Role::first_moment}};

  struct Hyperparameters {
    double b1, b2;
  };
  static constexpr const char* hyperparameters[] = {"b1", "b2"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_r, average_mu;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<Lion>(s);
    return {Gradient<T>(s), Average<T>(h.b1), Average<T>(h.b2), Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[1], const Coefficients<T>& c) {
    auto& [mu] = state;
    const V g = c.gradient(param, grad);
    const V r = c.average_r(mu, g);
    param = c.descent(
        param, select(r > 0, V(1), select(r < 0, V(-1), r)));  // else r is NaN or, since averages are flushed, +0.0
    mu = c.average_mu(mu, g);
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
