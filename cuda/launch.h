// A rule's kernels, launched on one device, each launch checked and named. Knows no CUDA: see runtime.h.
#pragma once

#include "kernels.h"
#include "runtime.h"

namespace flatstep::device {

class Launcher {
 public:
  Launcher(Runtime& runtime, Kernels kernels, int rule, int index)
      : runtime_(runtime), kernels_(kernels[rule]), rule_(rule), index_(index) {}

  const Kernel& kernel(int layout) const { return kernels_[layout]; }

  // All that a launch would fail for later. Throws OutOfDeviceMemory where there is no room.
  void load(int layout) const;

  // Coefficients, then the sweep, if it has tiles, on the current device.
  void launch(int layout, const Preparation& preparation, const Sweep& sweep, void* stream) const;

  // Throws where the launch just made was refused.
  void check(int layout, const char* part = "") const;

 private:
  std::string text(int layout, const char* part, const std::string& why) const;

  Runtime& runtime_;
  const Kernel* kernels_;  // by layout
  int rule_, index_;
};

// The same of the kernels that all rules share.
class SharedLauncher {
 public:
  SharedLauncher(Runtime& runtime, const SharedKernels* kernels, int index)
      : runtime_(runtime), kernels_(kernels), index_(index) {}

  void load();  // at the first call
  void launch(const Norm& norm, void* stream) const;
  void launch_zeros(const Sweep& sweep, int tile_elements, void* stream) const;

 private:
  void check(const char* part) const;

  Runtime& runtime_;
  const SharedKernels* kernels_;
  int index_;
  bool is_loaded_ = false;
};

}  // namespace flatstep::device
