// Adam (Kingma and Ba, 2015), and with decoupled weight decay AdamW (Loshchilov and Hutter, 2019). Used by catalog.h.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct Adam {
  static constexpr const char* name = "adam";
  static constexpr Slot slots[] = {{"mu", Role::first_moment}, {"nu", Role::second_moment}};

  struct Hyperparameters {
    double b1, b2, eps, eps_root, nesterov;
  };
  static constexpr const char* hyperparameters[] = {"b1", "b2", "eps", "eps_root", "nesterov"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_mu, average_nu;
    Momentum<T> momentum;
    T correct_nu;
    Direction<T> direction;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<Adam>(s);
    return {Gradient<T>(s),
            Average<T>(h.b1),
            Average<T>(h.b2),
            Momentum<T>(h.b1, s.count, h.nesterov != 0),
            T(bias_correction(h.b2, s.count)),
            Direction<T>(h.eps, h.eps_root),
            Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[2], const Coefficients<T>& c) {
    auto& [mu, nu] = state;
    const V g = c.gradient(param, grad);
    mu = c.average_mu(mu, g);
    nu = c.average_nu(nu, g * g);
    param = c.descent(param, c.direction(c.momentum(mu, g), c.correct_nu * nu));
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
