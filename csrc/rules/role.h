// What a slot holds. Included by rules, and by code that knows slots without compiling a rule.
#pragma once

namespace flatstep {

// A layout gives each role its format.
enum class Role { first_moment, second_moment, like_param };

}  // namespace flatstep
