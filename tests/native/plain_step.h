// A step on one element with nothing around the rule: what every kernel must equal. For tests only.
#pragma once

#include "call.h"

namespace flatstep::testing {

// Rule and layout are counted as in catalog.h; state holds a pointer a slot.
void plain_step(int rule, int layout, const Scalars& scalars, void* param, const void* grad, void* const* state);

}  // namespace flatstep::testing
