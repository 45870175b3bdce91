// The part of flatstep._cuda for XLA, absent where jaxlib's headers were not found when it was built. For module.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace flatstep {

void add_xla(nanobind::module_& module);

}  // namespace flatstep
