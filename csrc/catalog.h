// The only list of rules and layouts. Every target stamps out a kernel for each pair.
#pragma once

#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/f64.h"
#include "rules/adam.h"
#include "rules/amsgrad.h"
#include "rules/optimistic_adam.h"
#include "rules/optimistic_adam_two_slots.h"
#include "rules/optimistic_gradient_descent.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class... T>
struct List {};

using Rules = List<Adam, AMSGrad, OptimisticAdam, OptimisticAdamTwoSlots, OptimisticGradientDescent>;

// param, grad, first moment, second moment. The state of a narrow parameter is as narrow, as torch and optax have it,
// or float32 in part or in whole.
using Layouts = List<Layout<F32, F32, F32, F32>,      //
                     Layout<F32, F32, BF16, F32>,     //
                     Layout<F64, F64, F64, F64>,      //
                     Layout<BF16, BF16, BF16, BF16>,  //
                     Layout<BF16, BF16, F32, BF16>,   //
                     Layout<BF16, BF16, F32, F32>,    //
                     Layout<BF16, F32, BF16, BF16>,   //
                     Layout<BF16, F32, F32, BF16>,    //
                     Layout<BF16, F32, F32, F32>,     //
                     Layout<F16, F16, F16, F16>,      //
                     Layout<F16, F16, F32, F16>,      //
                     Layout<F16, F16, F32, F32>,      //
                     Layout<F16, F32, F16, F16>,      //
                     Layout<F16, F32, F32, F16>,      //
                     Layout<F16, F32, F32, F32>>;

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
