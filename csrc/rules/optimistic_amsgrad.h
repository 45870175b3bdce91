// Optimistic Adam that divides by the largest second moment so far, as AMSGrad does. Used by catalog.h.
#pragma once

#include "optimism.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct OptimisticAMSGrad {
  static constexpr const char* name = "optimistic_amsgrad";
  static constexpr Slot slots[] = {{"mu", Role::first_moment},
                                   {"nu", Role::second_moment},
                                   {"nu_max", Role::second_moment},
                                   {"previous", Role::like_param}};

  // nu's bias is corrected before the maximum (optax) or after it (torch).
  struct Hyperparameters {
    double alpha, beta, b1, b2, eps, eps_root, nesterov, correct_nu_before, correct_nu_after;
  };
  static constexpr const char* hyperparameters[] = {
      "alpha", "beta", "b1", "b2", "eps", "eps_root", "nesterov", "correct_nu_before", "correct_nu_after"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_mu, average_nu;
    Momentum<T> momentum;
    T before, after;
    Direction<T> direction;
    Optimism<T> optimism;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<OptimisticAMSGrad>(s);
    const double correct_nu = bias_correction(h.b2, s.count);
    return {Gradient<T>(s),
            Average<T>(h.b1),
            Average<T>(h.b2),
            Momentum<T>(h.b1, s.count, h.nesterov != 0),
            T(h.correct_nu_before != 0 ? correct_nu : 1.0),
            T(h.correct_nu_after != 0 ? correct_nu : 1.0),
            Direction<T>(h.eps, h.eps_root),
            Optimism<T>(h.alpha, h.beta, s),
            Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[4], const Coefficients<T>& c) {
    auto& [mu, nu, nu_max, previous] = state;
    const V g = c.gradient(param, grad);
    mu = c.average_mu(mu, g);
    nu = c.average_nu(nu, g * g);
    nu_max = maximum(nu_max, c.before * nu);
    const V r = c.direction(c.momentum(mu, g), c.after * nu_max);
    param = c.descent(param, c.optimism(r, previous));
    previous = r;
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
