// The terms of which rules are put together: gradient, moving average, bias correction, direction, descent.
// Included by rules. Each is a struct of coefficients with the one operation that uses them.
#pragma once

#include "rule.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// g = scale * grad [+ weight_decay * param]: the gradient that the rule works with.
template <class T>
struct Gradient {
  T scale, weight_decay;

  FLATSTEP_FN explicit Gradient(const Scalars& s)
      : scale(T(s.maximize != 0 ? -s.grad_scale : s.grad_scale)),
        weight_decay(T(s.decoupled_weight_decay != 0 ? 0.0 : s.weight_decay)) {}

  template <class V>
  FLATSTEP_FN V operator()(V param, V grad) const {
    const V g = scale * grad;
    return select(weight_decay != 0, g + weight_decay * param, g);
  }
};

// b * old + (1 - b) * x, an exponentially decaying average of x.
template <class T>
struct Average {
  T b, one_minus_b;

  FLATSTEP_FN explicit Average(double b) : b(T(b)), one_minus_b(T(1 - b)) {}

  template <class V>
  FLATSTEP_FN V operator()(V old, V x) const {
    return flush(b * old + one_minus_b * x);
  }
};

// 1 / (1 - b^t), which undoes the average's start at zero.
FLATSTEP_FN double bias_correction(double b, int64_t t) { return 1 / (1 - power(b, t)); }

// mu_hat = mu / (1 - b1^t), or with Nesterov's momentum b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).
template <class T>
struct Momentum {
  T of_mu, of_g;

  FLATSTEP_FN Momentum(double b1, int64_t t, bool nesterov)
      : of_mu(T(nesterov ? b1 * bias_correction(b1, t + 1) : bias_correction(b1, t))),
        of_g(T(nesterov ? (1 - b1) * bias_correction(b1, t) : 0.0)) {}

  template <class V>
  FLATSTEP_FN V operator()(V mu, V g) const {
    const V looking_back = of_mu * mu;
    return select(of_g != 0, looking_back + of_g * g, looking_back);
  }
};

// r = mu_hat / (sqrt(nu_hat + eps_root) + eps)
template <class T>
struct Direction {
  T eps, eps_root;

  FLATSTEP_FN Direction(double eps, double eps_root) : eps(round_guard<T>(eps)), eps_root(round_guard<T>(eps_root)) {}

  template <class V>
  FLATSTEP_FN V operator()(V mu_hat, V nu_hat) const {
    return mu_hat / (square_root(nu_hat + eps_root) + eps);
  }
};

// param - learning_rate * (u [+ weight_decay * param]), where weight decay is decoupled from the gradient.
template <class T>
struct Descent {
  T learning_rate, weight_decay;

  FLATSTEP_FN explicit Descent(const Scalars& s)
      : learning_rate(T(s.learning_rate)), weight_decay(T(s.decoupled_weight_decay != 0 ? s.weight_decay : 0.0)) {}

  template <class V>
  FLATSTEP_FN V operator()(V param, V u) const {
    return param - learning_rate * select(weight_decay != 0, u + weight_decay * param, u);
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
