// See device_memory.h.
#include "device_memory.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <stdexcept>

namespace flatstep {

namespace {

// A plain buffer of bytes of the host's.
struct HostBytes {
  HostBytes(nb::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view, flags) != 0) throw nb::python_error();
  }
  ~HostBytes() { PyBuffer_Release(&view); }
  HostBytes(const HostBytes&) = delete;
  HostBytes& operator=(const HostBytes&) = delete;

  Py_buffer view;
};

}  // namespace

const DeviceBackend& backend_for(int32_t type, nb::list devices) {
  for (nb::handle capsule : devices) {
    const void* const backend = PyCapsule_GetPointer(capsule.ptr(), device_backend_name);
    if (!backend) throw nb::python_error();
    if (static_cast<const DeviceBackend*>(backend)->type == type) return *static_cast<const DeviceBackend*>(backend);
  }
  throw nb::type_error("there is no kernel for that device");
}

DeviceMemory::DeviceMemory(nb::handle object, int64_t stream, const DeviceBackend& backend)
    : source_(nb::borrow(object)), backend_(&backend), device_(dlpack::device_of(object)) {
  if (const std::string why = dlpack::hidden_meaning(object); !why.empty()) throw nb::type_error(why.c_str());
  const OnDevice current(backend, device_.index);
  const dlpack::Taken taken = dlpack::take(object, stream);
  const dlpack::TensorView& view = taken.view;
  if (dlpack::plain_device(view.device) != device_)
    throw nb::type_error("its memory is not on the device of which it says it is");
  owner_ = taken.owner;
  read_only_ = taken.read_only;
  is_copy_ = taken.is_copy;
  data_ = static_cast<char*>(view.data) + view.byte_offset;
  dtype_ = dlpack::name_of(view.dtype);
  shape_.assign(view.shape, view.shape + view.ndim);
  strides_ = dlpack::strides_of(view);
}

DeviceMemory DeviceMemory::again() const {
  DeviceMemory now(source_, dlpack::no_stream, *backend_);
  now.queue_ = queue_;
  return now;
}

bool DeviceMemory::lies_as(const DeviceMemory& other) const {
  return data_ == other.data_ && device_ == other.device_ && shape_ == other.shape_ && strides_ == other.strides_ &&
         dtype_ == other.dtype_ && read_only_ == other.read_only_;
}

DeviceMemory::DeviceMemory(std::shared_ptr<DeviceQueue> queue, const DeviceMemory& source, int64_t bytes)
    : source_(source.source_),
      queue_(std::move(queue)),
      backend_(source.backend_),
      device_(source.device_),
      dtype_("uint8"),
      shape_{bytes},
      strides_{1} {
  if (bytes == 0) return;
  data_ = static_cast<char*>(queue_->allocate(size_t(bytes), stream()));
  owner_ = std::shared_ptr<void>(data_, [queue = queue_](void* memory) { queue->release(memory); });
}

DeviceMemory DeviceMemory::part(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides,
                                std::string dtype, nb::object source) const {
  DeviceMemory made;
  made.source_ = std::move(source);
  made.owner_ = owner_;
  made.queue_ = queue_;
  made.backend_ = backend_;
  made.device_ = device_;
  made.data_ = data_ + offset;
  made.dtype_ = std::move(dtype);
  made.shape_ = std::move(shape);
  made.strides_ = std::move(strides);
  return made;
}

Tensor DeviceMemory::tensor() const {
  return {data_,      shape_.data(), strides_.data(), int32_t(shape_.size()), dtype_named(dtype_),
          read_only_, device_,       dtype_.c_str()};
}

void DeviceMemory::fetch(nb::handle into) const {
  const HostBytes host(into, PyBUF_WRITABLE);
  if (host.view.len == 0) return;
  void* const stream = this->stream();
  unlocked([&] { queue_->copy(host.view.buf, data_, size_t(host.view.len), stream); });
}

void DeviceMemory::store(nb::list pairs) {
  struct Copy {
    const DeviceMemory& to;
    const Py_buffer& from;
    void* stream;
  };
  std::deque<HostBytes> buffers;
  std::vector<Copy> copies;
  for (nb::handle pair : pairs) {
    const auto& to = nb::cast<const DeviceMemory&>(pair[0]);
    copies.push_back({to, buffers.emplace_back(nb::object(pair[1]), PyBUF_SIMPLE).view, to.stream()});
  }
  if (copies.empty()) return;
  unlocked([&] {
    for (const Copy& copy : copies) {
      if (copy.to.queue_->is_capturing(copy.stream))
        throw std::runtime_error("loading cannot become part of a CUDA graph; do it outside of the capture");
    }
    for (const Copy& copy : copies) {
      if (copy.from.len > 0) copy.to.queue_->copy(copy.to.data_, copy.from.buf, size_t(copy.from.len), copy.stream);
    }
  });
}

void* DeviceMemory::stream() const {
  const OnDevice current(*backend_, device_.index);
  return current_stream(source_, device_).value_or(nullptr);
}

nb::object DeviceMemory::lend(int64_t stream, bool is_versioned) const {
  if (stream != dlpack::no_stream && queue_) queue_->let_follow(reinterpret_cast<void*>(stream));
  std::vector<int64_t> shape = shape_, strides = strides_;
  const dlpack::DataType dtype = dlpack::data_type_of(dtype_named(dtype_));
  return dlpack::capsule_of({data_, device_, int32_t(shape.size()), dtype, shape.data(), strides.data(), 0}, owner_,
                            is_versioned);
}

int DeviceMemory::visit(visitproc visit, void* argument) const {
  return source_.ptr() ? visit(source_.ptr(), argument) : 0;
}

void bind_device_memory(nb::module_& module) {
  module.def(
      "borrow",
      [](nb::handle object, nb::list devices) {
        DeviceMemory memory(object, dlpack::no_stream, backend_for(dlpack::device_of(object).type, devices));
        if (memory.is_copy()) throw nb::type_error("it lends copies, which nobody would see change");
        return memory;
      },
      nb::arg("object"), nb::arg("devices"),
      nb::sig("def borrow(object: object, devices: list[object]) -> DeviceMemory"));
  module.def("store", &DeviceMemory::store, nb::arg("pairs"),
             nb::sig("def store(pairs: list[tuple[DeviceMemory, typing.Any]]) -> None"));
  nb::class_<DeviceMemory>(module, "DeviceMemory", nb::type_slots(Collected<DeviceMemory>::slots))
      .def("part", &DeviceMemory::part, nb::arg("offset"), nb::arg("shape"), nb::arg("strides"), nb::arg("dtype"),
           nb::arg("source"))
      .def("fetch", &DeviceMemory::fetch, nb::arg("into"))
      .def("again", &DeviceMemory::again)
      .def("lies_as", &DeviceMemory::lies_as, nb::arg("other"))
      .def("lend", &DeviceMemory::lend, nb::arg("stream"), nb::arg("is_versioned"))
      .def_prop_ro(
          "shape", [](const DeviceMemory& own) { return nb::tuple(nb::cast(own.shape())); },
          nb::for_getter(nb::sig("def shape(self, /) -> tuple[int, ...]")))
      .def_prop_ro(
          "strides", [](const DeviceMemory& own) { return nb::tuple(nb::cast(own.strides())); },
          nb::for_getter(nb::sig("def strides(self, /) -> tuple[int, ...]")))
      .def_prop_ro("dtype", &DeviceMemory::dtype)
      .def_prop_ro(
          "device", [](const DeviceMemory& own) { return nb::make_tuple(own.device().type, own.device().index); },
          nb::for_getter(nb::sig("def device(self, /) -> tuple[int, int]")))
      .def_prop_ro("source", &DeviceMemory::source);
}

}  // namespace flatstep
