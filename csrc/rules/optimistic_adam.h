// Optimistic Adam that keeps its previous direction in a slot. Used by catalog.h.
#pragma once

#include "optimism.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct OptimisticAdam {
  static constexpr const char* name = "optimistic_adam";
  static constexpr Slot slots[] = {
      {"mu", Role::first_moment}, {"nu", Role::second_moment}, {"previous", Role::like_param}};

  struct Hyperparameters {
    double alpha, beta, b1, b2, eps, eps_root, nesterov;
  };
  static constexpr const char* hyperparameters[] = {"alpha", "beta", "b1", "b2", "eps", "eps_root", "nesterov"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_mu, average_nu;
    Momentum<T> momentum;
    T correct_nu;
    Direction<T> direction;
    Optimism<T> optimism;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<OptimisticAdam>(s);
    return {Gradient<T>(s),
            Average<T>(h.b1),
            Average<T>(h.b2),
            Momentum<T>(h.b1, s.count, h.nesterov != 0),
            T(bias_correction(h.b2, s.count)),
            Direction<T>(h.eps, h.eps_root),
            Optimism<T>(h.alpha, h.beta, s),
            Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[3], const Coefficients<T>& c) {
    auto& [mu, nu, previous] = state;
    const V g = c.gradient(param, grad);
    mu = c.average_mu(mu, g);
    nu = c.average_nu(nu, g * g);
    const V r = c.direction(c.momentum(mu, g), c.correct_nu * nu);
    param = c.descent(param, c.optimism(r, previous));
    previous = r;
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
