// One device's part of a step: its tensors and numbers, and the launch. The base of each front end's own. For csrc/bind
// only.
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "device.h"
#include "step.h"

namespace flatstep {

struct DeviceStep {
  // Without a backend the processor itself steps.
  DeviceStep(const Device& device, int rule, std::vector<std::string> slots, StepOptions options,
             const DeviceBackend* backend)
      : device(device),
        rule(rule),
        backend(backend),
        queue(backend ? backend->make(rule, device.index) : nullptr),
        tensors(rule, std::move(slots), options) {}

  const Device device;
  const int rule;
  const DeviceBackend* const backend;
  const std::shared_ptr<DeviceQueue> queue;  // null for the processor

  // Of the step under way. A parameter's row is its index in `rows` on a device, in `scalars` on the processor.
  Step tensors;
  std::vector<Scalars> scalars;
  std::vector<Row> rows;
  std::vector<Traced> traced;
  const float* skip = nullptr;
  std::optional<NormWork> norm;       // found on the device before the step
  const FoundNorm* limits = nullptr;  // that the step on the device takes
  void* stream = nullptr;
  const std::vector<Job>* jobs = nullptr;

  bool is_processor() const { return !queue; }
  bool is_capturing(void* other) const { return queue && queue->is_capturing(other); }

  void begin() {
    tensors.begin();
    scalars.clear();
    rows.clear();
    traced.clear();
    skip = nullptr;
    norm.reset();
    limits = nullptr;
  }

  // All that can fail before the launch. `no_capture` says why the step must not be recorded into a CUDA graph; null
  // where it may.
  void prepare(const Target& target, const char* no_capture) {
    jobs = &tensors.jobs(scalars, target);
    if (!queue) return;
    if (no_capture && queue->is_capturing(stream)) throw std::runtime_error(no_capture);
    queue->prepare({*jobs, rows, scalars, traced, skip, stream, norm ? &*norm : nullptr, limits});
  }
};

// Launches the prepared parts of a step: those of devices first, for they may fail, and run beside the processor's.
// `threads` as in `run`.
template <class Parts>
void launch(const Parts& parts, Team team, int threads = 0) {
  for (const DeviceStep& part : parts) {
    if (!part.is_processor()) part.queue->launch();
  }
  for (const DeviceStep& part : parts) {
    if (part.is_processor()) run(*part.jobs, team, threads);
  }
}

}  // namespace flatstep
