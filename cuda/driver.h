// The Runtime of CUDA, and which devices there are. For module.cpp and xla.cpp.
#pragma once

#include <string>
#include <vector>

#include "runtime.h"

namespace flatstep::device {

Runtime& cuda_runtime();

// From one place on a device to another.
void copy_there(void* to, const void* from, size_t bytes, void* stream);

// Lets this thread do what is forbidden by default while some stream is capturing.
class Relaxed {
 public:
  Relaxed();
  ~Relaxed();
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  int before_;
};

struct CudaDevice {
  std::string name;
  int major, minor;  // compute capability
};

// Throws where there is no driver, and says so.
std::vector<CudaDevice> cuda_devices();

}  // namespace flatstep::device
