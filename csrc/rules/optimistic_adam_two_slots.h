// Optimistic Adam without Nesterov's momentum and without a slot for the previous direction. Used by catalog.h.
#pragma once

#include "optimism.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// Without Nesterov's momentum the previous direction is a function of the old moments, which the step reads anyway:
// made again, it has the same bits, and 28 bytes a float32 parameter move instead of 36. For that the moments must be
// stored as computed, and the caller must hand back the numbers of the leaf's previous step.
struct OptimisticAdamTwoSlots {
  static constexpr const char* name = "optimistic_adam_two_slots";
  static constexpr bool needs_state_as_computed = true;
  static constexpr Slot slots[] = {{"mu", Role::first_moment}, {"nu", Role::second_moment}};

  struct Hyperparameters {
    double alpha, beta, b1, b2, eps, eps_root;
    double previous_b1, previous_b2, previous_eps, previous_eps_root;
  };
  static constexpr const char* hyperparameters[] = {
      "alpha",    "beta",        "b1",          "b2",           "eps",
      "eps_root", "previous_b1", "previous_b2", "previous_eps", "previous_eps_root"};

  // How a step turns its moments into a direction.
  template <class T>
  struct Recipe {
    T correct_mu, correct_nu;
    Direction<T> direction;

    template <class V>
    FLATSTEP_FN V operator()(V mu, V nu) const {
      return direction(correct_mu * mu, correct_nu * nu);
    }
  };

  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average_mu, average_nu;
    Recipe<T> previous, present;
    Optimism<T> optimism;
    Descent<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<OptimisticAdamTwoSlots>(s);
    const int64_t before = s.count > 1 ? s.count - 1 : 1;  // the first step has no previous direction: unused, finite
    return {Gradient<T>(s),
            Average<T>(h.b1),
            Average<T>(h.b2),
            {T(bias_correction(h.previous_b1, before)), T(bias_correction(h.previous_b2, before)),
             Direction<T>(h.previous_eps, h.previous_eps_root)},
            {T(bias_correction(h.b1, s.count)), T(bias_correction(h.b2, s.count)), Direction<T>(h.eps, h.eps_root)},
            Optimism<T>(h.alpha, h.beta, s),
            Descent<T>(s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[2], const Coefficients<T>& c) {
    auto& [mu, nu] = state;
    const V g = c.gradient(param, grad);
    const V previous = c.previous(mu, nu);
    mu = c.average_mu(mu, g);
    nu = c.average_nu(nu, g * g);
    param = c.descent(param, c.optimism(c.present(mu, nu), previous));
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
