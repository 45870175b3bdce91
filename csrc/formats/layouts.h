// The only list of layouts. Each target has a kernel for each rule and each layout that fits the rule.
#pragma once

#include "bf16.h"
#include "f16.h"
#include "f32.h"
#include "f64.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class... T>
struct List {};

// param, grad, first moment, second moment. The state of a narrow parameter is as narrow, as torch and optax have it,
// or float32 in part or in whole. The comments say how a front end reaches a layout:
//
//   own         NumPy, torch and JAX, for parameters of this dtype
//   mu_dtype    the same, with this option
//   grad        torch with `param.grad_dtype = torch.float32`; JAX, which takes float32 gradients as they come
//   state       torch with a float32 state, loaded or set; JAX with a state made for float32 parameters
//
// NumPy has no bfloat16 parameters. tests/core/test_layouts.py reaches each layout.
using Layouts = List<Layout<F32, F32, F32, F32>,      // own
                     Layout<F32, F32, BF16, F32>,     // mu_dtype
                     Layout<F64, F64, F64, F64>,      // own
                     Layout<BF16, BF16, BF16, BF16>,  // own
                     Layout<BF16, BF16, F32, BF16>,   // mu_dtype
                     Layout<BF16, BF16, F32, F32>,    // state
                     Layout<BF16, F32, BF16, BF16>,   // grad
                     Layout<BF16, F32, F32, BF16>,    // grad, mu_dtype
                     Layout<BF16, F32, F32, F32>,     // grad, state
                     Layout<F16, F16, F16, F16>,      // own
                     Layout<F16, F16, F32, F16>,      // mu_dtype
                     Layout<F16, F16, F32, F32>,      // state
                     Layout<F16, F32, F16, F16>,      // grad
                     Layout<F16, F32, F32, F16>,      // grad, mu_dtype
                     Layout<F16, F32, F32, F32>>;     // grad, state

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
