// The kernels of the cuda target, for module.cpp.
#pragma once

#include "kernels.h"

namespace flatstep::device {

extern const Kernels cuda_kernels;

}  // namespace flatstep::device
