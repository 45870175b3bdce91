// See streams.h.
#include "streams.h"

#include "managed.h"

namespace flatstep {

const dlpack::ExchangeAPI* dlpack::known_version_of(nb::handle capsule) {
  const void* const table = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
  if (!table) throw nb::python_error();
  const auto* header = static_cast<const Header*>(table);
  while (header && header->major != known_major_version) header = header->previous;
  return reinterpret_cast<const ExchangeAPI*>(header);
}

namespace {

// An attribute that there need not be, nor that it works. (nanobind's getattr with a default forgets signals.)
nb::object offered(nb::handle object, const char* name) {
  try {
    return nb::getattr(object, name);
  } catch (const nb::python_error& error) {
    if (!is_refusal(error)) throw;
    return nb::none();
  }
}

}  // namespace

OnDevice::~OnDevice() {
  try {
    maker_.use(before_);
  } catch (...) {  // it was current a moment ago; whoever uses it next is told
  }
}

std::string name_of(const Device& device) {
  if (device.type == dlpack::cpu) return "the CPU";
  if (device.type == dlpack::cuda) return "cuda:" + std::to_string(device.index);
  return "a device of another kind";
}

std::optional<void*> current_stream(nb::handle array, const Device& device) {
  const nb::object capsule = offered(array.type(), "__dlpack_c_exchange_api__");
  const dlpack::ExchangeAPI* const api = capsule.is_none() ? nullptr : dlpack::known_version_of(capsule);
  if (api && api->current_stream) {
    void* stream = nullptr;
    if (api->current_stream(device.type, device.index, &stream) != 0) throw nb::python_error();
    return stream;
  }
  const nb::object interface = offered(array, "__cuda_array_interface__");
  nb::object stream = nb::none();
  if (PyDict_Check(interface.ptr())) stream = interface.attr("get")("stream");
  if (stream.is_none()) return std::nullopt;
  return reinterpret_cast<void*>(nb::cast<uintptr_t>(stream));
}

int64_t number_of(std::optional<void*> stream) {
  return stream && *stream ? int64_t(reinterpret_cast<uintptr_t>(*stream)) : dlpack::legacy_stream;
}

}  // namespace flatstep
