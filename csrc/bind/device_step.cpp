// See device_step.h.
#include "device_step.h"

#include <stdexcept>

namespace flatstep {

void DeviceStep::begin() {
  tensors.begin();
  scalars.clear();
  rows.clear();
  traced.clear();
  skip = nullptr;
}

void DeviceStep::prepare(const Target& target, const Capture& capture) {
  jobs_ = &tensors.jobs(scalars, target);
  if (!queue_) return;
  if (!capture.is_allowed && queue_->is_capturing(stream)) throw std::runtime_error(capture.error);
  queue_->prepare({*jobs_, rows, scalars, traced, skip, stream});
}

void DeviceStep::launch(Team team, int threads) {
  if (queue_) {
    queue_->launch();
  } else {
    run(jobs_->data(), int64_t(jobs_->size()), team, threads);
  }
}

}  // namespace flatstep
