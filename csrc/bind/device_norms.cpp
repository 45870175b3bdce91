// Norms of arrays on devices, beside any optimizer: global_norm's, and torch's clip_grad_norm_'s.
#include <nanobind/stl/string.h>

#include <deque>
#include <mutex>
#include <stdexcept>

#include "device_limits.h"

namespace flatstep {

namespace {

constexpr int any_rule = 0;  // nothing is stepped

class DeviceNorms {
 public:
  explicit DeviceNorms(nb::list backends) : backends_(std::move(backends)) {}

  // The Euclidean norm of all arrays, which may hold None. The host waits for it.
  double find(const nb::list& arrays, const nb::callable& name) {
    const Reading reading = read(arrays, name);
    if (!reading.place) return 0;
    FoundNorm found{};
    unlocked([&] {
      const std::lock_guard lock(mutex_);
      Place& place = *reading.place;
      if (!place.memory) place.memory = place.queue->allocate(sizeof found, reading.stream);
      launch(reading, {}, NormKind::two, static_cast<FoundNorm*>(place.memory));
      place.queue->copy(&found, place.memory, sizeof found, reading.stream);
    });
    return found.norm;
  }

  // The same of torch's gradients, all of which are there. The norm and the factor of torch's clip_grad_norm_ go into
  // four float64s on the device (see FoundNorm), and the host goes on.
  void find_into(const nb::list& arrays, bool largest, double max_norm, nb::handle into, const nb::callable& name) {
    const Reading reading = read(arrays, name);
    if (!reading.place) return;
    const DeviceMemory own = DeviceMemory::take(into, dlpack::no_stream, *reading.place->backend);
    const GradientLimits limits{max_norm, false, GradientLimits::Formula::torch};
    unlocked([&] {
      const std::lock_guard lock(mutex_);
      launch(reading, limits, largest ? NormKind::largest : NormKind::two,
             reinterpret_cast<FoundNorm*>(own.array.data));
    });
  }

 private:
  // What is kept of a device.
  struct Place {
    Device device;
    const DeviceBackend* backend;
    std::unique_ptr<DeviceQueue> queue;
    void* memory = nullptr;

    Place(const Device& device, const DeviceBackend* backend)
        : device(device), backend(backend), queue(backend->make(any_rule, device.index)) {}
    ~Place() {
      if (memory) queue->release(memory);
    }
  };

  // The arrays of one call, which keep their memory.
  struct Reading {
    Place* place = nullptr;
    void* stream = nullptr;
    std::deque<DeviceMemory> held;
    GradientNorm norm;
  };

  Reading read(const nb::list& arrays, const nb::callable& name) {
    Reading reading;
    reading.norm.begin();
    try {
      for (size_t i = 0; i < arrays.size(); ++i) {
        if (!arrays[i].is_none()) add(reading, arrays[i], int64_t(i));
      }
    } catch (const ArgumentError& error) {
      raise(error, {"params", "grads", [&](int64_t index) { return nb::cast<std::string>(name(index)); }});
    }
    return reading;
  }

  void add(Reading& reading, nb::handle array, int64_t index) {
    const auto reject = [&](const std::string& why) {
      throw ArgumentError{Operand::grad, index, "is a " + full_type_name(array) + why, -1, true};
    };
    const auto why = rejection_by([&] {
      const Device device = dlpack::device_of(array);
      if (!reading.place) begin(reading, array, device);
      if (!reading.place || device != reading.place->device)
        reject(" on " + name_of(device) + ", but a norm is of arrays in one memory; find the norms of each");
      const int64_t waiting = is_in_order(reading, array) ? dlpack::no_stream : number_of(reading.stream);
      reading.held.push_back(DeviceMemory::take(array, waiting, *reading.place->backend));
    });
    if (why) reject(" that cannot be shared by DLPack: " + *why);
    const Tensor tensor = reading.held.back().array.tensor();
    check_norm(tensor, index);
    reading.norm.add(tensor, 1);
  }

  // Whether the array's library says that it works on the norm's stream, which then waits for nothing.
  static bool is_in_order(const Reading& reading, nb::handle array) {
    const OnDevice current(*reading.place->backend, reading.place->device.index);
    return has_stream_of_type(array.type()) && current_stream(array, reading.place->device) == reading.stream;
  }

  void begin(Reading& reading, nb::handle array, const Device& device) {
    const DeviceBackend* const backend = backends_.find(device.type);
    if (!backend) return;
    const std::lock_guard lock(mutex_);
    for (Place& known : places_) {
      if (known.device == device) reading.place = &known;
    }
    if (!reading.place) reading.place = &places_.emplace_back(device, backend);
    const OnDevice current(*backend, device.index);
    reading.stream = current_stream(array, device).value_or(nullptr);
  }

  static void launch(const Reading& reading, const GradientLimits& limits, NormKind kind, FoundNorm* found) {
    NormWork work = norm_work(reading.norm, limits, {}, found);
    work.kind = kind;
    reading.place->queue->prepare({{}, {}, {}, {}, nullptr, reading.stream, &work});
    reading.place->queue->launch();
  }

  Backends backends_;
  std::mutex mutex_;  // of the queues: threads find norms side by side
  std::deque<Place> places_;
};

}  // namespace

void bind_device_norms(nb::module_& module) {
  nb::class_<DeviceNorms>(module, "DeviceNorms")
      .def(nb::init<nb::list>(), nb::sig("def __init__(self, backends: list[object], /) -> None"))
      .def("find", &DeviceNorms::find,
           nb::sig("def find(self, arrays: list[typing.Any], name: collections.abc.Callable[[int], str], /) -> float"))
      .def("find_into", &DeviceNorms::find_into,
           nb::sig("def find_into(self, arrays: list[typing.Any], largest: bool, max_norm: float, into: typing.Any, "
                   "name: collections.abc.Callable[[int], str], /) -> None"));
}

}  // namespace flatstep
