// The kernels of the cuda target, for module.cpp.
#pragma once

#include "kernels.h"

namespace flatstep::device {

extern const Kernels cuda_kernels;
extern const LayOut cuda_lay_out;
extern const SharedKernels cuda_shared;

}  // namespace flatstep::device
