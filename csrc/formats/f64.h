// float64, stored as computed. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct F64 : Plain<double> {
  static constexpr const char* name = "float64";
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
