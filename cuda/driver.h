// The Runtime of CUDA, and which devices there are. For module.cpp.
#pragma once

#include <string>
#include <vector>

#include "runtime.h"

namespace flatstep::device {

Runtime& cuda_runtime();

struct CudaDevice {
  std::string name;
  int major, minor;  // compute capability
};

// Throws where there is no driver, and says so.
std::vector<CudaDevice> cuda_devices();

}  // namespace flatstep::device
