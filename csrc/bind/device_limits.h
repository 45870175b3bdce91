// The limits on gradients that lie on one device, which finds their norm and keeps what follows from it. For csrc/bind
// only.
#pragma once

#include "device_memory.h"
#include "norm.h"

namespace flatstep {

// Of gradients that were added to a norm. `scale` is that of a loss, in device memory.
inline NormWork norm_work(const GradientNorm& norm, const GradientLimits& limits, DeviceNumber scale,
                          FoundNorm* found) {
  return {norm.pieces(),
          norm.scalars(),
          scale,
          NormKind::two,
          bool(limits.max_norm),
          limits.skips_nonfinite,
          limits.formula,
          limits.max_norm.value_or(0),
          found};
}

// Memory on a device for what is found out there, made when it is first needed.
class FoundOnDevice {
 public:
  // `beside` is any memory on that device. Needs the GIL; throws OutOfDeviceMemory.
  FoundNorm* make(const DeviceMemory& beside) {
    if (!memory_) memory_ = beside.allocate(sizeof(FoundNorm));
    return reinterpret_cast<FoundNorm*>(memory_->array.data);
  }

  bool is_there() const { return memory_.has_value(); }

  // After all that the queue was given and what is pending on a stream; returns when it is done.
  FoundNorm read(void* stream) const {
    FoundNorm found{};
    memory_->queue->copy(&found, memory_->array.data, sizeof found, stream);
    return found;
  }

 private:
  std::optional<DeviceMemory> memory_;
};

}  // namespace flatstep
