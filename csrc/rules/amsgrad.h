// AMSGrad (Reddi, Kale and Kumar, 2018): Adam that divides by the largest second moment so far. Used by catalog.h.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct AMSGrad {
  static constexpr const char* name = "amsgrad";
  static constexpr Slot slots[] = {
      {"mu", Role::first_moment}, {"nu", Role::second_moment}, {"nu_max", Role::second_moment}};

  // The conventions in use differ in where nu's bias is corrected: before the maximum (optax), after it (torch), or
  // nowhere (the paper).
  struct Hyperparameters {
    double b1, b2, eps, eps_root, correct_mu, correct_nu_before, correct_nu_after;
  };
  static constexpr const char* hyperparameters[] = {
      "b1", "b2", "eps", "eps_root", "correct_mu", "correct_nu_before", "correct_nu_after"};

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_mu, average_nu;
    T correct_mu, before, after;
    Direction<T> direction;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<AMSGrad>(s);
    const double correct_mu = bias_correction(h.b1, s.count), correct_nu = bias_correction(h.b2, s.count);
    return {Gradient<T>(s),
            Average<T>(h.b1),
            Average<T>(h.b2),
            T(h.correct_mu != 0 ? correct_mu : 1.0),
            T(h.correct_nu_before != 0 ? correct_nu : 1.0),
            T(h.correct_nu_after != 0 ? correct_nu : 1.0),
            Direction<T>(h.eps, h.eps_root),
            Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[3], const Coefficients<T>& c) {
    auto& [mu, nu, nu_max] = state;
    const V g = c.gradient(param, grad);
    mu = c.average_mu(mu, g);
    nu = c.average_nu(nu, g * g);
    nu_max = maximum(nu_max, c.before * nu);
    param = c.descent(param, c.direction(c.correct_mu * mu, c.after * nu_max));
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
