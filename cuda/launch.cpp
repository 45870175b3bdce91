// See launch.h.
#include "launch.h"

#include <stdexcept>

#include "describe.h"

namespace flatstep::device {

void Launcher::load(int layout) const {
  kernels_[layout].load();
  check(layout);
}

void Launcher::launch(int layout, const Preparation& preparation, const Sweep& sweep, void* stream) const {
  kernels_[layout].launch_preparation(preparation, stream);
  check(layout);
  if (sweep.tile_count == 0) return;
  kernels_[layout].launch_sweep(sweep, stream);
  check(layout);
}

void Launcher::check(int layout, const char* part) const {
  const std::string why = runtime_.launch_failure();
  if (why.empty()) return;
  throw std::runtime_error("the launch of " + (part + std::string(rules()[size_t(rule_)].name)) + " on " +
                           std::string(layouts()[size_t(layout)].param.name) + " parameters failed on device " +
                           std::to_string(index_) + ": " + why);
}

}  // namespace flatstep::device
