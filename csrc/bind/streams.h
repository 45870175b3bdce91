// On which stream another library works now. For csrc/bind only.
#pragma once

#include <optional>

#include "device.h"
#include "dlpack.h"

namespace flatstep {

// Makes a device current for as long as it lives: libraries answer for the one that is, and export what lies on no
// other.
class OnDevice {
 public:
  OnDevice(const DeviceMaker& maker, int index) : maker_(maker), before_(maker.use(index)) {}
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const DeviceMaker& maker_;
  int before_;
};

// "the CPU", "cuda:0", for messages.
std::string name_of(const Device& device);

// The stream on which an array's library launches its work on a device, which is to be current: as its type says in C,
// or else the array itself. Nothing where neither does.
std::optional<void*> current_stream(nb::handle array, const Device& device);

// A stream as DLPack numbers them. The one that others wait for, where it is not known.
int64_t number_of(std::optional<void*> stream);

}  // namespace flatstep
