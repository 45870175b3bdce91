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

// An attribute that there need not be, nor that it works.
nb::object offered(nb::handle object, const char* name) {
  try {
    return nb::getattr(object, name, nb::none());
  } catch (const nb::python_error& error) {
    if (!is_refusal(error)) throw;
    return nb::none();
  }
}

}  // namespace

void* current_stream(nb::handle array, const Device& device) {
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
  return reinterpret_cast<void*>(stream.is_none() ? uintptr_t(dlpack::legacy_stream) : nb::cast<uintptr_t>(stream));
}

}  // namespace flatstep
