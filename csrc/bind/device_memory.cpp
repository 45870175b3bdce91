// See device_memory.h.
#include "device_memory.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <stdexcept>

#include "managed.h"
#include "running.h"
#include "streams.h"

namespace flatstep {

namespace {

// The name of a dtype as NumPy has it, or what comes nearest, for messages.
std::string name_of(const dlpack::DataType& dtype) {
  const std::string bits = std::to_string(dtype.bits);
  if (dtype.lanes != 1) return std::to_string(dtype.lanes) + " lanes";
  switch (dtype.code) {
    case dlpack::signed_integer: return "int" + bits;
    case dlpack::unsigned_integer: return "uint" + bits;
    case dlpack::floating: return "float" + bits;
    case dlpack::brain_floating: return "bfloat" + bits;
    case dlpack::complex_number: return "complex" + bits;
    default: return "DLPack code " + std::to_string(dtype.code) + " of " + bits + " bits";
  }
}

dlpack::DataType data_type_of(const DeviceMemory& memory) {
  const dlpack::Code code = memory.dtype() == "bfloat16" ? dlpack::brain_floating : dlpack::floating;
  return {code, uint8_t(memory.item_bytes() * 8), 1};
}

// CUDA's two kinds are one.
Device plain(const dlpack::Device& device) {
  return {device.type == dlpack::cuda_managed ? dlpack::cuda : device.type, device.index};
}

// What `__dlpack__` gives. Producers from before DLPack 1.0 do not know `max_version`.
nb::object ask_for_capsule(nb::handle object, int64_t stream) {
  const nb::object give = object.attr("__dlpack__");
  try {
    return give(nb::arg("stream") = stream, nb::arg("max_version") = nb::make_tuple(1, 0));
  } catch (const nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return give(nb::arg("stream") = stream);
}

// What is lent: the memory, and what describes it.
template <class M>
struct Lent {
  M managed{};
  std::shared_ptr<void> owner;
  std::vector<int64_t> shape, strides;
};

template <class M>
void release_lent(M* managed) {
  delete static_cast<Lent<M>*>(managed->context);
}

// Of a capsule that nobody took anything from.
template <class M>
void release_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, M::name)) release_lent(static_cast<M*>(PyCapsule_GetPointer(capsule, M::name)));
}

template <class M>
nb::object capsule_of(const dlpack::TensorView& view, std::shared_ptr<void> owner) {
  auto lent = std::make_unique<Lent<M>>();
  lent->owner = std::move(owner);
  lent->shape.assign(view.shape, view.shape + view.axes);
  lent->strides.assign(view.strides, view.strides + view.axes);
  lent->managed.view = view;
  lent->managed.view.shape = lent->shape.data();
  lent->managed.view.strides = lent->strides.data();
  lent->managed.context = lent.get();
  lent->managed.release = &release_lent<M>;
  nb::object capsule = nb::steal(PyCapsule_New(&lent->managed, M::name, &release_capsule<M>));
  if (!capsule.is_valid()) throw nb::python_error();
  lent.release();
  return capsule;
}

// What a capsule of this kind holds, from here on the taker's; null where it is of another kind.
template <class M>
std::shared_ptr<M> take_from(nb::handle capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), M::name)) return nullptr;
  auto* const managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), M::name));
  PyCapsule_SetName(capsule.ptr(), M::used_name);
  return {managed, [](M* own) {
            if (own->release) own->release(own);
          }};
}

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

Device device_of(nb::handle object) {
  const nb::object pair = object.attr("__dlpack_device__")();
  return plain({nb::cast<int32_t>(nb::int_(pair[0])), nb::cast<int32_t>(nb::int_(pair[1]))});
}

const DeviceMaker& maker_for(int32_t type, nb::list devices) {
  for (nb::handle capsule : devices) {
    const void* const maker = PyCapsule_GetPointer(capsule.ptr(), device_maker_name);
    if (!maker) throw nb::python_error();
    if (static_cast<const DeviceMaker*>(maker)->type == type) return *static_cast<const DeviceMaker*>(maker);
  }
  throw nb::type_error("there is nobody to step on that device");
}

DeviceMemory::DeviceMemory(nb::handle object, int64_t stream, const DeviceMaker& maker)
    : source_(nb::borrow(object)), maker_(&maker), device_(device_of(object)) {
  if (const std::string why = hidden_meaning(object); !why.empty()) throw nb::type_error(why.c_str());
  const OnDevice current(maker, device_.index);
  take(ask_for_capsule(object, stream));
}

DeviceMemory DeviceMemory::again() const {
  DeviceMemory now(source_, dlpack::no_stream, *maker_);
  now.queue_ = queue_;
  return now;
}

bool DeviceMemory::lies_as(const DeviceMemory& other) const {
  return data_ == other.data_ && device_ == other.device_ && shape_ == other.shape_ && strides_ == other.strides_ &&
         dtype_ == other.dtype_ && read_only_ == other.read_only_;
}

void DeviceMemory::take(nb::handle capsule) {
  if (const auto versioned = take_from<dlpack::VersionedManaged>(capsule)) {
    owner_ = versioned;
    if (versioned->major != dlpack::known_major_version) throw nb::value_error("it is of a DLPack after version 1");
    read_only_ = (versioned->flags & dlpack::read_only_flag) != 0;
    is_copy_ = (versioned->flags & dlpack::copy_flag) != 0;
    describe(versioned->view);
  } else if (const auto managed = take_from<dlpack::Managed>(capsule)) {
    owner_ = managed;
    describe(managed->view);
  } else {
    throw nb::type_error("its __dlpack__ did not give a DLPack capsule");
  }
}

void DeviceMemory::describe(const dlpack::TensorView& view) {
  if (plain(view.device) != device_) throw nb::type_error("its memory is not on the device of which it says it is");
  data_ = static_cast<char*>(view.data) + view.byte_offset;
  dtype_ = name_of(view.dtype);
  item_bytes_ = std::max(1, view.dtype.bits * view.dtype.lanes / 8);
  shape_.assign(view.shape, view.shape + view.axes);
  strides_.assign(size_t(view.axes), 0);
  uint64_t dense = uint64_t(item_bytes_);  // an empty or absurd array's may wrap, and mean nothing
  for (size_t axis = shape_.size(); axis-- > 0; dense *= uint64_t(shape_[axis]))
    strides_[axis] = view.strides ? int64_t(uint64_t(view.strides[axis]) * uint64_t(item_bytes_)) : int64_t(dense);
}

DeviceMemory::DeviceMemory(std::shared_ptr<DeviceQueue> queue, const DeviceMemory& source, int64_t bytes)
    : source_(source.source_),
      queue_(std::move(queue)),
      maker_(source.maker_),
      device_(source.device_),
      dtype_("uint8"),
      shape_{bytes},
      strides_{1} {
  if (bytes == 0) return;
  data_ = static_cast<char*>(queue_->allocate(size_t(bytes), stream()));
  owner_ = std::shared_ptr<void>(data_, [queue = queue_](void* memory) { queue->release(memory); });
}

DeviceMemory DeviceMemory::part(int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides,
                                std::string dtype, int item_bytes, nb::object source) const {
  DeviceMemory made;
  made.source_ = std::move(source);
  made.owner_ = owner_;
  made.queue_ = queue_;
  made.maker_ = maker_;
  made.device_ = device_;
  made.data_ = data_ + offset;
  made.dtype_ = std::move(dtype);
  made.item_bytes_ = item_bytes;
  made.shape_ = std::move(shape);
  made.strides_ = std::move(strides);
  return made;
}

Array DeviceMemory::array() const {
  return {data_, dtype_, item_bytes_, int(shape_.size()), shape_.data(), strides_.data(), read_only_};
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
  const OnDevice current(*maker_, device_.index);
  return current_stream(source_, device_).value_or(nullptr);
}

nb::object DeviceMemory::lend(int64_t stream, bool is_versioned) const {
  if (stream != dlpack::no_stream && queue_) queue_->let_follow(reinterpret_cast<void*>(stream));
  std::vector<int64_t> shape = shape_, strides = strides_;
  for (int64_t& stride : strides) stride /= item_bytes_;
  const dlpack::TensorView view{
      data_, {device_.type, device_.index}, int32_t(shape.size()), data_type_of(*this), shape.data(), strides.data(),
      0};
  return is_versioned ? capsule_of<dlpack::VersionedManaged>(view, owner_) : capsule_of<dlpack::Managed>(view, owner_);
}

int DeviceMemory::visit(visitproc visit, void* argument) const {
  return source_.ptr() ? visit(source_.ptr(), argument) : 0;
}

void bind_device_memory(nb::module_& module) {
  module.def(
      "borrow",
      [](nb::handle object, nb::list devices) {
        DeviceMemory memory(object, dlpack::no_stream, maker_for(device_of(object).type, devices));
        if (memory.is_copy()) throw nb::type_error("it lends copies, which nobody would see change");
        return memory;
      },
      nb::arg("object"), nb::arg("devices"),
      nb::sig("def borrow(object: object, devices: list[object]) -> DeviceMemory"));
  module.def("store", &DeviceMemory::store, nb::arg("pairs"),
             nb::sig("def store(pairs: list[tuple[DeviceMemory, typing.Any]]) -> None"));
  nb::class_<DeviceMemory>(module, "DeviceMemory", nb::type_slots(Collected<DeviceMemory>::slots))
      .def("part", &DeviceMemory::part, nb::arg("offset"), nb::arg("shape"), nb::arg("strides"), nb::arg("dtype"),
           nb::arg("item_bytes"), nb::arg("source"))
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
      .def_prop_ro("item_bytes", &DeviceMemory::item_bytes)
      .def_prop_ro(
          "device", [](const DeviceMemory& own) { return nb::make_tuple(own.device().type, own.device().index); },
          nb::for_getter(nb::sig("def device(self, /) -> tuple[int, int]")))
      .def_prop_ro("source", &DeviceMemory::source);
}

}  // namespace flatstep
