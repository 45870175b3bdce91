// The only list of rules. CMake reads it too, and compiles each rule by itself for each CPU target (cpu/rule.cpp.in).
#pragma once

#include "formats/layouts.h"
#include "rules/adam.h"
#include "rules/amsgrad.h"
#include "rules/lion.h"
#include "rules/optimistic_adam.h"
#include "rules/optimistic_adam_two_slots.h"
#include "rules/optimistic_amsgrad.h"
#include "rules/optimistic_gradient_descent.h"
#include "rules/rmsprop.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

using Rules = List<Adam, AMSGrad, Lion, OptimisticAdam, OptimisticAdamTwoSlots, OptimisticAMSGrad,
                   OptimisticGradientDescent, RMSProp, RMSPropCentered, RMSPropMomentum, RMSPropCenteredMomentum>;

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
