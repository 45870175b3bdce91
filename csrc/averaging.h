// How the average of a parameter goes on after an update. Included by the tails of CPU and CUDA sweeps.
#pragma once

#include "host_device.h"
#include "tail.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// The average after an update, of the parameter as it is stored. V is T, or a vector of Ts. Every form is one sum, so
// that a device needs no branches: from + weight * step.
template <class T>
struct Averaging {
  T weight, of_average;
  bool copies, interpolates, is_from_average;

  FLATSTEP_FN Averaging(const Tail& tail, int64_t updates) {
    const T of_param = T(1 - tail.decay);
    interpolates = tail.form == AverageForm::interpolated;
    copies = interpolates && updates == 1;
    of_average = interpolates ? T(1) - of_param : T(tail.decay);
    is_from_average = of_param < T(0.5);  // the nearer end, as torch.lerp
    weight = interpolates && !is_from_average ? -of_average : of_param;
  }

  template <class V>
  FLATSTEP_FN V operator()(V average, V param) const {
    if (copies) return param;
    if (!interpolates) return V(of_average) * average + V(weight) * param;
    return (is_from_average ? average : param) + V(weight) * (param - average);
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
