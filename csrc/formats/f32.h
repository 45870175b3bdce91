// float32, stored as computed. Used by layouts.h.
#pragma once

#include "format.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct F32 : Plain<float> {
  static constexpr const char* name = "float32";
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
