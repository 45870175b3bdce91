// See device_memory.h.
#include "device_memory.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <stdexcept>

namespace flatstep {

Backends::Backends(nb::list capsules) : capsules_(std::move(capsules)) {
  for (nb::handle capsule : capsules_) {
    const void* const backend = PyCapsule_GetPointer(capsule.ptr(), device_backend_name);
    if (!backend) throw nb::python_error();
    all_.push_back(static_cast<const DeviceBackend*>(backend));
  }
}

const DeviceBackend* Backends::find(int32_t type) const {
  const auto found = std::ranges::find(all_, type, &DeviceBackend::type);
  return found == all_.end() ? nullptr : *found;
}

DeviceMemory DeviceMemory::take(nb::handle object, int64_t stream, const DeviceBackend& backend) {
  const Device device = dlpack::device_of(object);
  const OnDevice current(backend, device.index);
  DeviceMemory taken{nb::borrow(object), &backend, dlpack::take(object, stream), nullptr};
  taken.array.device = dlpack::plain_device(taken.array.device);
  if (taken.array.device != device) throw nb::type_error("its memory is not on the device of which it says it is");
  return taken;
}

DeviceMemory DeviceMemory::again() const {
  DeviceMemory now = take(source, dlpack::no_stream, *backend);
  now.queue = queue;
  return now;
}

DeviceMemory DeviceMemory::part(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides,
                                std::string dtype, nb::object source) const {
  DeviceMemory made{std::move(source), backend, array, queue};
  made.array.data += offset;
  made.array.shape = std::move(shape);
  made.array.strides = std::move(strides);
  made.array.dtype = std::move(dtype);
  return made;
}

DeviceMemory DeviceMemory::allocate(int64_t bytes) const {
  DeviceMemory made{source, backend, {}, queue};
  made.array.device = array.device;
  if (bytes == 0) return made;
  made.array.data = static_cast<char*>(queue->allocate(size_t(bytes), stream()));
  made.array.owner = {made.array.data, [queue = queue](void* memory) { queue->release(memory); }};
  return made;
}

void DeviceMemory::fetch(nb::handle into) const {
  const Buffer host(into, PyBUF_WRITABLE);
  if (host.view.len == 0) return;
  void* const on = stream();
  unlocked([&] { queue->copy(host.view.buf, array.data, size_t(host.view.len), on); });
}

void DeviceMemory::store(nb::list pairs) {
  struct Copy {
    const DeviceMemory& to;
    const Py_buffer& from;
    void* stream;
  };
  std::deque<Buffer> buffers;
  std::vector<Copy> copies;
  for (nb::handle pair : pairs) {
    const auto& to = nb::cast<const DeviceMemory&>(pair[0]);
    copies.push_back({to, buffers.emplace_back(nb::object(pair[1]), PyBUF_SIMPLE).view, to.stream()});
  }
  if (copies.empty()) return;
  unlocked([&] {
    for (const Copy& copy : copies) {
      if (copy.to.queue->is_capturing(copy.stream))
        throw std::runtime_error("loading cannot become part of a CUDA graph; do it outside of the capture");
    }
    for (const Copy& copy : copies) {
      if (copy.from.len > 0) copy.to.queue->copy(copy.to.array.data, copy.from.buf, size_t(copy.from.len), copy.stream);
    }
  });
}

void* DeviceMemory::stream() const {
  const OnDevice current(*backend, array.device.index);
  return current_stream(source, array.device).value_or(nullptr);
}

nb::object DeviceMemory::lend(int64_t stream) const {
  if (stream != dlpack::no_stream && queue) queue->let_follow(reinterpret_cast<void*>(stream));
  const Tensor tensor = array.tensor();
  nb::dlpack::dtype dtype = nb::dtype<uint8_t>();
  if (tensor.dtype != Dtype::other)
    dtype = {known_dtypes[size_t(tensor.dtype)].dlpack_code, uint8_t(8 * bytes_of(tensor.dtype)), 1};
  const std::vector<size_t> shape(array.shape.begin(), array.shape.end());
  const nb::capsule owner(new std::shared_ptr<void>(array.owner),
                          [](void* own) noexcept { delete static_cast<std::shared_ptr<void>*>(own); });
  return nb::cast(nb::ndarray<nb::array_api>(array.data, shape.size(), shape.data(), owner, tensor.strides, dtype,
                                             array.device.type, array.device.index));
}

void bind_device_memory(nb::module_& module) {
  using Pair = nb::typed<nb::tuple, int, int>;
  using Numbers = nb::typed<nb::tuple, int, nb::ellipsis>;
  module.def(
      "borrow",
      [](nb::handle object, nb::list backends) {
        const DeviceBackend* const backend = Backends(backends).find(dlpack::device_of(object).type);
        if (!backend) throw nb::type_error("there is no kernel for that device");
        DeviceMemory memory = DeviceMemory::take(object, dlpack::no_stream, *backend);
        if (memory.array.is_copy) throw nb::type_error("it lends copies, whose changes would be lost");
        return memory;
      },
      nb::arg("object"), nb::arg("backends"));
  module.def("store", &DeviceMemory::store,
             nb::sig("def store(pairs: list[tuple[DeviceMemory, typing.Any]], /) -> None"));
  nb::class_<DeviceMemory>(module, "DeviceMemory", nb::type_slots(Collected<DeviceMemory>::slots))
      .def("part", &DeviceMemory::part, nb::arg("offset"), nb::arg("shape"), nb::arg("strides"), nb::arg("dtype"),
           nb::arg("source"))
      .def("fetch", &DeviceMemory::fetch, nb::arg("into"))
      .def("again", &DeviceMemory::again)
      .def("lies_as", &DeviceMemory::lies_as, nb::arg("other"))
      .def("lend", &DeviceMemory::lend, nb::sig("def lend(self, stream: int, /) -> typing.Any"))
      .def_prop_ro("shape", [](const DeviceMemory& own) { return Numbers(nb::tuple(nb::cast(own.array.shape))); })
      .def_prop_ro("strides", [](const DeviceMemory& own) { return Numbers(nb::tuple(nb::cast(own.array.strides))); })
      .def_prop_ro("dtype", [](const DeviceMemory& own) { return own.array.dtype; })
      .def_prop_ro(
          "device",
          [](const DeviceMemory& own) { return Pair(nb::make_tuple(own.array.device.type, own.array.device.index)); })
      .def_ro("source", &DeviceMemory::source);
}

}  // namespace flatstep
