// One device's part of a step: its tensors and numbers, and the launch. The base of each front end's own. For csrc/bind
// only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "step.h"

namespace flatstep {

// Whether a step may be recorded into a CUDA graph.
struct Capture {
  bool is_allowed;
  const char* error;  // where it is not
};

class DeviceStep {
 public:
  // Without a backend the processor itself steps.
  DeviceStep(const Device& device, int rule, std::vector<std::string> slots, StepOptions options,
             const DeviceBackend* backend)
      : tensors(rule, std::move(slots), options),
        device_(device),
        rule_(rule),
        backend_(backend),
        queue_(backend ? backend->make(rule, device.index) : nullptr) {}

  const Device& device() const { return device_; }
  int rule() const { return rule_; }
  bool is_processor() const { return !queue_; }
  const DeviceBackend& backend() const { return *backend_; }
  const std::shared_ptr<DeviceQueue>& queue() const { return queue_; }

  // Of the step under way. A parameter's row is its index in `rows` on a device, in `scalars` on the processor.
  Step tensors;
  std::vector<Scalars> scalars;
  std::vector<Row> rows;
  std::vector<Traced> traced;
  const float* skip = nullptr;
  void* stream = nullptr;

  void begin();
  bool is_capturing(void* other) const { return queue_ && queue_->is_capturing(other); }

  // `prepare` does all that can fail, `launch` the rest. `threads` is how many threads of the processor a large step
  // uses where the user chose no number; 0: num_threads().
  void prepare(const Target& target, const Capture& capture);
  void launch(Team team, int threads);

 private:
  Device device_;
  int rule_;
  const DeviceBackend* backend_;
  std::shared_ptr<DeviceQueue> queue_;  // null for the processor
  const std::vector<Job>* jobs_ = nullptr;
};

// Launches the prepared parts of a step: those of devices first, for they may fail, and run beside the processor's.
template <class Parts>
void launch_all(Parts& parts, Team team, int threads = 0) {
  for (const bool on_processor : {false, true}) {
    for (auto& part : parts) {
      if (part.is_processor() == on_processor) part.launch(team, threads);
    }
  }
}

}  // namespace flatstep
