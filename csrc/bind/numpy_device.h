// One device's part of a step of flatstep.Optimizer: arrays of other libraries there, and their streams. For
// numpy_step.cpp only.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "device_limits.h"
#include "device_step.h"

namespace flatstep {

// A device's part of a step, and what its arrays' libraries are to see of it.
struct NumpyDeviceStep : DeviceStep {
  using DeviceStep::DeviceStep;

  static constexpr const char* not_counted =
      "this step would become part of a CUDA graph, whose replays would not be counted; use flatstep.torch with "
      "capturable=True, or step outside of the capture";

  std::vector<void*> other_streams;  // of libraries, other than `stream`, that are to continue after the step
  bool waits = false;                // some libraries do not say on which stream they work
  nb::handle last_type;              // of the array read last
  bool is_last_in_order = false;     // that type's arrays are written in the order of `stream`
  DeviceMemory* first = nullptr;     // of the parameters
  std::deque<DeviceMemory> held;     // of the step under way
  FoundOnDevice found;

  // The step takes the limits of these gradients, all of which lie here. The host knows nothing of what comes of it.
  void limit(const GradientNorm& gradients, const GradientLimits& asked) {
    FoundNorm* const own = found.make(*first);
    norm.emplace(norm_work(gradients, asked, {}, own));
    limits = own;
  }

  std::optional<void*> stream_of(nb::handle array) {
    const OnDevice current(*backend, device.index);
    const std::optional<void*> found = current_stream(array, device);
    waits = waits || !found;
    return found;
  }

  // An array of another library on this device, until the end of the step.
  Tensor read(nb::handle object, Operand operand, int64_t index) {
    const auto reject = [&](const std::string& why) {
      throw ArgumentError{operand, index, "is a " + full_type_name(object) + why, -1, true};
    };
    if (!nb::hasattr(object, "__dlpack_device__")) reject(", expected an array on a device that offers DLPack");
    const auto why = rejection_by([&] {
      if (const Device found = dlpack::device_of(object); found != device)
        reject(" on " + name_of(found) + ", expected one on " + name_of(device) + "; move it there");
      note_stream(object);
      held.push_back(DeviceMemory::take(object, is_last_in_order ? dlpack::no_stream : number_of(stream), *backend));
    });
    if (why) reject(" that cannot be shared by DLPack: " + *why);
    Tensor tensor = held.back().array.tensor();
    tensor.read_only = tensor.read_only || held.back().array.is_copy;
    return tensor;
  }

  void note_stream(nb::handle array) {
    if (array.type().is(last_type)) return;
    last_type = array.type();
    const std::optional<void*> other = stream_of(array);
    // Without a wait: torch takes another handle of its own stream for another stream, and records an event an array.
    is_last_in_order = other == stream && has_stream_of_type(last_type);
    if (other && *other != stream && std::ranges::find(other_streams, *other) == other_streams.end())
      other_streams.push_back(*other);
  }

  void prepare(const Target& target) {
    for (void* const other : other_streams) {
      if (is_capturing(other)) throw std::runtime_error(not_counted);
    }
    DeviceStep::prepare(target, not_counted);
  }

  void continue_others() {
    for (void* const other : other_streams) queue->let_follow(other);
    if (waits) queue->wait();
  }

  void end() {
    held.clear();
    other_streams.clear();
    waits = false;
    last_type = nb::handle();
  }
};

}  // namespace flatstep
