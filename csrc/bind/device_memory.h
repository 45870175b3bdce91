// Arrays in a device's memory: other libraries', taken by DLPack, and parts of our own state, offered by it. For
// csrc/bind only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device.h"
#include "dlpack.h"

namespace flatstep {

// The capsules of backends that Python passes.
class Backends {
 public:
  explicit Backends(nb::list capsules);           // raises for other objects
  const DeviceBackend* find(int32_t type) const;  // null where there is none for that type of device

 private:
  nb::list capsules_;  // keep the backends
  std::vector<const DeviceBackend*> all_;
};

struct DeviceMemory {
  nb::object source;  // the other library's array, or the parameter whose state this is
  const DeviceBackend* backend;
  dlpack::Array array;
  std::shared_ptr<DeviceQueue> queue;  // who copies: the one who steps the array

  // Reads another library's array. `stream`, in DLPack's numbering, waits for the work that is pending on the array.
  // Errors of that library pass through.
  static DeviceMemory take(nb::handle object, int64_t stream, const DeviceBackend& backend);

  // The same object's memory by now, after the work that its library has pending.
  DeviceMemory again() const;
  bool lies_as(const DeviceMemory& other) const { return is_same_memory(array.tensor(), other.array.tensor()); }

  // A part of this memory, as an array of its own, for the parameter `source`. Strides are in elements.
  DeviceMemory part(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides, std::string dtype,
                    nb::object source) const;

  // Allocates zeroed memory on the queue's device, for the state of parameters like this one.
  DeviceMemory allocate(int64_t bytes) const;

  // The bytes from the first on, as many as a buffer has, to the host. After what is pending on the stream of the
  // source's library; returns when it is done.
  void fetch(nb::handle into) const;

  // Copies from the host: pairs of a DeviceMemory and a buffer. An error before the first copy changes nothing.
  static void store(nb::list pairs);

  // Returns an array that offers the memory to other libraries by DLPack. `stream` waits for the pending work.
  nb::object lend(int64_t stream) const;

  // For the garbage collector, which does not see through `array.owner`.
  int visit(visitproc visit, void* argument) const { return source.ptr() ? visit(source.ptr(), argument) : 0; }
  void forget() { source.reset(); }

 private:
  void* stream() const;  // of the source's library
};

}  // namespace flatstep
