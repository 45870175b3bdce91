// RMSProp (Hinton, 2012): steps divided by the root of an average square. Its options choose its slots, and so one of
// four rules. Used by catalog.h.
#pragma once

#include "terms.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// trace = momentum * trace - learning_rate * r, as optax has it, or + r, as torch has it: then the descent multiplies
// with the learning rate. With Nesterov's momentum the step looks ahead by one more update of the trace. Decoupled
// weight decay is no part of the trace.
template <class T>
struct TraceDescent {
  T momentum, of_r, of_trace_ahead, of_r_ahead, rate, weight_decay;

  FLATSTEP_FN TraceDescent(double momentum, bool nesterov, bool lr_in_trace, const Scalars& s)
      : momentum(T(momentum)),
        of_r(T(lr_in_trace ? -s.learning_rate : 1.0)),
        of_trace_ahead(T(nesterov ? momentum : 1.0)),
        of_r_ahead(nesterov ? of_r : T(0)),
        rate(T(lr_in_trace ? -1.0 : s.learning_rate)),
        weight_decay(T(s.decoupled_weight_decay != 0 ? s.learning_rate * s.weight_decay : 0.0)) {}

  template <class V>
  FLATSTEP_FN V operator()(V param, V r, V& trace) const {
    trace = flush(momentum * trace + of_r * r);
    const V looking_back = of_trace_ahead * trace;
    const V step = rate * select(of_r_ahead != 0, looking_back + of_r_ahead * r, looking_back);
    return param - select(weight_decay != 0, step + weight_decay * param, step);
  }
};

template <bool has_trace>
struct RMSPropNumbers {
  struct Hyperparameters {
    double decay, eps, eps_in_sqrt, bias_correction;
  };
  static constexpr const char* hyperparameters[] = {"decay", "eps", "eps_in_sqrt", "bias_correction"};

  template <class T>
  using DescentOf = Descent<T>;
  template <class T>
  static FLATSTEP_FN Descent<T> descent(const Hyperparameters&, const Scalars& s) {
    return Descent<T>(s);
  }
};

template <>
struct RMSPropNumbers<true> {
  struct Hyperparameters {
    double decay, eps, eps_in_sqrt, bias_correction, momentum, nesterov, lr_in_trace;
  };
  static constexpr const char* hyperparameters[] = {"decay",    "eps",      "eps_in_sqrt", "bias_correction",
                                                    "momentum", "nesterov", "lr_in_trace"};

  template <class T>
  using DescentOf = TraceDescent<T>;
  template <class T>
  static FLATSTEP_FN TraceDescent<T> descent(const Hyperparameters& h, const Scalars& s) {
    return {h.momentum, h.nesterov != 0, h.lr_in_trace != 0, s};
  }
};

template <bool centered, bool has_trace>
struct RMSPropVariant : RMSPropNumbers<has_trace> {
  template <class T>
  struct Coefficients {
    Gradient<T> gradient;
    Average<T> average;
    T correct;
    Direction<T> direction;
    typename RMSPropVariant::template DescentOf<T> descent;
  };

  template <class T>
  static FLATSTEP_FN Coefficients<T> prepare(const Scalars& s) {
    const auto h = read_hyperparameters<RMSPropVariant>(s);
    const bool inside = h.eps_in_sqrt != 0;
    return {Gradient<T>(s), Average<T>(h.decay), T(h.bias_correction != 0 ? bias_correction(h.decay, s.count) : 1.0),
            Direction<T>(inside ? 0.0 : h.eps, inside ? h.eps : 0.0), RMSPropVariant::template descent<T>(h, s)};
  }

  template <class V, class T>
  static FLATSTEP_FN void update(V& param, V grad, V (&state)[1 + centered + has_trace], const Coefficients<T>& c) {
    const V g = c.gradient(param, grad);
    V& nu = state[0];
    nu = c.average(nu, g * g);
    V variance = c.correct * nu;
    if constexpr (centered) {
      V& mu = state[1];
      mu = c.average(mu, g);
      const V mu_hat = c.correct * mu;
      variance = variance - mu_hat * mu_hat;
    }
    const V r = c.direction(g, variance);
    if constexpr (has_trace) {
      param = c.descent(param, r, state[1 + centered]);
    } else {
      param = c.descent(param, r);
    }
  }
};

// mu is stored as nu is: their difference counts.
struct RMSProp : RMSPropVariant<false, false> {
  static constexpr const char* name = "rmsprop";
  static constexpr Slot slots[] = {{"nu", Role::second_moment}};
};

struct RMSPropCentered : RMSPropVariant<true, false> {
  static constexpr const char* name = "rmsprop_centered";
  static constexpr Slot slots[] = {{"nu", Role::second_moment}, {"mu", Role::second_moment}};
};

struct RMSPropMomentum : RMSPropVariant<false, true> {
  static constexpr const char* name = "rmsprop_momentum";
  static constexpr Slot slots[] = {{"nu", Role::second_moment}, {"trace", Role::like_param}};
};

struct RMSPropCenteredMomentum : RMSPropVariant<true, true> {
  static constexpr const char* name = "rmsprop_centered_momentum";
  static constexpr Slot slots[] = {
      {"nu", Role::second_moment}, {"mu", Role::second_moment}, {"trace", Role::like_param}};
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
