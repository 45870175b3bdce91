// Optimistic gradient descent (Rakhlin and Sridharan, 2013): steps along the gradient and along its change.
// Used by catalog.h.
#pragma once

#include "optimism.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct OptimisticGradientDescent {
  static constexpr const char* name = "optimistic_gradient_descent";
  static constexpr Slot slots[] = {{"previous", Role::like_param}};

  struct Hyperparameters {
    double alpha, beta;
  };
  static constexpr const char* hyperparameters[] = {"alpha", "beta"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Optimism<T> optimism;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<OptimisticGradientDescent>(s);
    return {Gradient<T>(s), Optimism<T>(h.alpha, h.beta, s), Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[1], const Coefficients<T>& c) {
    auto& [previous] = state;
    const V g = c.gradient(param, grad);
    param = c.descent(param, c.optimism(g, previous));
    previous = g;
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
