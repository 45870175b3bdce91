// One rule and few layouts in place of csrc/catalog.h, so that the probe of CMakeLists.txt compiles the cuda target's
// source in seconds.
#pragma once

#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/f64.h"
#include "rules/adam.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class... T>
struct List {};

using Layouts = List<Layout<F32, F32, F32, F32>, Layout<BF16, BF16, BF16, BF16>, Layout<F16, F32, F16, F16>>;
using Rules = List<Adam>;

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
