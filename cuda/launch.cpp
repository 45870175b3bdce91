// See launch.h.
#include "launch.h"

#include <stdexcept>
#include <utility>

#include "describe.h"
#include "device.h"

namespace flatstep::device {

void Launcher::load(int layout) const {
  runtime_.load(kernels_[layout].load);
  const Runtime::Failure failure = runtime_.launch_failure();
  if (failure.is_for_want_of_memory) throw OutOfDeviceMemory(text(layout, "", failure.why));
  if (!failure.why.empty()) throw std::runtime_error(text(layout, "", failure.why));
}

void Launcher::launch(int layout, const Preparation& preparation, const Sweep& sweep, void* stream) const {
  kernels_[layout].launch_preparation(preparation, stream);
  check(layout);
  if (sweep.tile_count == 0) return;
  kernels_[layout].launch_sweep(sweep, stream);
  check(layout);
}

void Launcher::check(int layout, const char* part) const {
  const Runtime::Failure failure = runtime_.launch_failure();
  if (!failure.why.empty()) throw std::runtime_error(text(layout, part, failure.why));  // some may have been launched
}

std::string Launcher::text(int layout, const char* part, const std::string& why) const {
  return "the launch of " + (part + std::string(rules()[size_t(rule_)].name)) + " on " +
         std::string(name_of(layouts()[size_t(layout)].param)) + " parameters failed on device " +
         std::to_string(index_) + ": " + why;
}

void SharedLauncher::load() {
  if (is_loaded_) return;
  if (!kernels_) throw std::logic_error("no shared kernels");
  runtime_.load(kernels_->load);
  check("a gradient norm");
  is_loaded_ = true;
}

void SharedLauncher::launch(const Norm& norm, void* stream) const {
  for (const auto& [launch, count] : {std::pair(kernels_->launch_units, norm.unit_count),
                                      {kernels_->launch_groups, norm.group_count},
                                      {kernels_->launch_rest, int64_t(1)}}) {
    if (count == 0) continue;
    launch(norm, stream);
    check("a gradient norm");
  }
}

void SharedLauncher::launch_zeros(const Sweep& sweep, int tile_elements, void* stream) const {
  if (sweep.tile_count == 0) return;
  kernels_->launch_zeros(sweep, tile_elements, stream);
  check("zeroed gradients");
}

void SharedLauncher::check(const char* part) const {
  const Runtime::Failure failure = runtime_.launch_failure();
  if (failure.why.empty()) return;
  const std::string text =
      "the launch of " + std::string(part) + " failed on device " + std::to_string(index_) + ": " + failure.why;
  if (failure.is_for_want_of_memory) throw OutOfDeviceMemory(text);
  throw std::runtime_error(text);
}

}  // namespace flatstep::device
