// See streams.h.
#include "streams.h"

namespace flatstep {

OnDevice::~OnDevice() {
  try {
    maker_.use(before_);
  } catch (...) {  // it was current a moment ago; its next use reports the error
  }
}

std::string name_of(const Device& device) {
  if (device.type == cpu_device) return "the CPU";
  if (device.type == cuda_device) return "cuda:" + std::to_string(device.index);
  return "a device of another kind";
}

std::optional<void*> current_stream(nb::handle array, const Device& device) {
  const dlpack::ExchangeAPI* const api = dlpack::exchange_api_of(array.type());
  if (api && api->current_stream) {
    void* stream = nullptr;
    if (api->current_stream(device.type, device.index, &stream) != 0) throw nb::python_error();
    return stream;
  }
  const nb::object interface = attribute_or_none(array, "__cuda_array_interface__");
  nb::object stream = nb::none();
  if (PyDict_Check(interface.ptr())) stream = interface.attr("get")("stream");
  if (stream.is_none()) return std::nullopt;
  return reinterpret_cast<void*>(nb::cast<uintptr_t>(stream));
}

int64_t number_of(std::optional<void*> stream) {
  return stream && *stream ? int64_t(reinterpret_cast<uintptr_t>(*stream)) : dlpack::legacy_stream;
}

}  // namespace flatstep
