// Arrays in a device's memory: other libraries', taken by DLPack, and parts of our own state, offered by it. For
// csrc/bind only.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "device.h"
#include "dlpack.h"
#include "module.h"

namespace flatstep {

// The backend for a type of device, of capsules with them. Raises where there is none.
const DeviceBackend& backend_for(int32_t type, nb::list devices);

class DeviceMemory {
 public:
  // Another library's array on a device of the backend's, after whose pending work a stream goes on, as DLPack numbers
  // them. Raises whatever that library does.
  DeviceMemory(nb::handle object, int64_t stream, const DeviceBackend& backend);

  // The same object's memory by now, after the work that its library has pending. The same queue copies it.
  DeviceMemory again() const;
  bool lies_as(const DeviceMemory& other) const;

  // So many bytes of state on the device of a queue, zero at first, for parameters like `source`.
  DeviceMemory(std::shared_ptr<DeviceQueue> queue, const DeviceMemory& source, int64_t bytes);

  // A part of this memory, as an array of its own, for the parameter `source`. Strides are in elements.
  DeviceMemory part(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides, std::string dtype,
                    nb::object source) const;

  Tensor tensor() const;
  const Device& device() const { return device_; }
  void* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  const std::vector<int64_t>& strides() const { return strides_; }
  const std::string& dtype() const { return dtype_; }
  nb::object source() const { return source_; }
  bool is_copy() const { return is_copy_; }  // that its library made of the array, to lend it

  // The bytes from the first on, as many as a buffer has, to the host. After what is pending on the stream of the
  // source's library; returns when it is done.
  void fetch(nb::handle into) const;

  // Likewise, from the host: pairs of DeviceMemory and a buffer. Until the first copy, whatever raises changes nothing.
  static void store(nb::list pairs);

  // Who copies; the one who steps the array.
  void set_queue(std::shared_ptr<DeviceQueue> queue) { queue_ = std::move(queue); }

  // Keeps the object alone, not what it lent, through which no garbage collector sees; its memory may go from here on.
  void let_go() { owner_.reset(); }

  // For another library: a capsule with the memory, after whose pending work `stream` goes on.
  nb::object lend(int64_t stream, bool is_versioned) const;

  // For the garbage collector.
  int visit(visitproc visit, void* argument) const;
  void forget() { source_.reset(); }

 private:
  DeviceMemory() = default;
  void* stream() const;

  nb::object source_;
  std::shared_ptr<void> owner_;  // of the memory
  std::shared_ptr<DeviceQueue> queue_;
  const DeviceBackend* backend_ = nullptr;
  Device device_{};
  char* data_ = nullptr;
  std::string dtype_;
  std::vector<int64_t> shape_, strides_;  // in elements
  bool read_only_ = false, is_copy_ = false;
};

}  // namespace flatstep
