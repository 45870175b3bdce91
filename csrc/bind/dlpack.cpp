// See dlpack.h.
#include "dlpack.h"

namespace flatstep::dlpack {

namespace {

enum Code : uint8_t {
  signed_integer = 0,
  unsigned_integer = 1,
  floating = 2,
  brain_floating = 4,
  complex_number = 5,
  boolean = 6
};

// Arrays that libraries give each other in a capsule, with a function that gives them back.
struct Managed {
  TensorView view;
  void* context;
  void (*release)(Managed*);

  // The names of the capsule, before and after its content was taken.
  static constexpr const char *name = "dltensor", *used_name = "used_dltensor";
};

struct VersionedManaged {
  uint32_t major = 1, minor = 0;
  void* context;
  void (*release)(VersionedManaged*);
  uint64_t flags;
  TensorView view;

  static constexpr const char *name = "dltensor_versioned", *used_name = "used_dltensor_versioned";
};

constexpr uint64_t read_only_flag = 1, copy_flag = 2;

// The content of a capsule of ours: the memory, and what describes it.
template <class M>
struct Offered {
  M managed{};
  std::shared_ptr<void> owner;
  std::vector<int64_t> shape, strides;
};

template <class M>
void release_offered(M* managed) {
  delete static_cast<Offered<M>*>(managed->context);
}

// Of a capsule whose content was never taken.
template <class M>
void release_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, M::name)) release_offered(static_cast<M*>(PyCapsule_GetPointer(capsule, M::name)));
}

template <class M>
nb::object make_capsule(const TensorView& view, std::shared_ptr<void> owner) {
  auto offered = std::make_unique<Offered<M>>();
  offered->owner = std::move(owner);
  offered->shape.assign(view.shape, view.shape + view.ndim);
  offered->strides.assign(view.strides, view.strides + view.ndim);
  offered->managed.view = view;
  offered->managed.view.shape = offered->shape.data();
  offered->managed.view.strides = offered->strides.data();
  offered->managed.context = offered.get();
  offered->managed.release = &release_offered<M>;
  nb::object capsule = nb::steal(PyCapsule_New(&offered->managed, M::name, &release_capsule<M>));
  if (!capsule.is_valid()) throw nb::python_error();
  offered.release();
  return capsule;
}

// The content of a capsule of this kind, which from here on is ours; null where it is of another kind.
template <class M>
std::shared_ptr<M> take_content(nb::handle capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), M::name)) return nullptr;
  auto* const managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), M::name));
  PyCapsule_SetName(capsule.ptr(), M::used_name);
  return {managed, [](M* own) {
            if (own->release) own->release(own);
          }};
}

// Producers from before DLPack 1.0 do not know `max_version`.
nb::object ask_for_capsule(nb::handle object, std::optional<int64_t> stream) {
  const nb::object give = object.attr("__dlpack__");
  nb::dict arguments;
  if (stream) arguments["stream"] = *stream;
  arguments["max_version"] = nb::make_tuple(1, 0);
  try {
    return give(**arguments);
  } catch (const nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  nb::del(arguments["max_version"]);
  return give(**arguments);
}

}  // namespace

const ExchangeAPI* exchange_api_in(nb::handle capsule) {
  const void* const table = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
  if (!table) throw nb::python_error();
  const auto* header = static_cast<const Header*>(table);
  while (header && header->major != known_major_version) header = header->previous;
  return reinterpret_cast<const ExchangeAPI*>(header);
}

const ExchangeAPI* exchange_api_of(nb::handle type) {
  const nb::object capsule = attribute_or_none(type, "__dlpack_c_exchange_api__");
  return capsule.is_none() ? nullptr : exchange_api_in(capsule);
}

bool describe(const ExchangeAPI& api, nb::handle object, Tensor& out) {
  TensorView view;
  if (api.describe(object.ptr(), &view) != 0) {
    PyErr_Clear();
    return false;
  }
  void* const data = static_cast<char*>(view.data) + view.byte_offset;
  out = {data, view.shape, view.strides, view.ndim, dtype_of(view.dtype), false, view.device, nullptr};
  return out.dtype != Dtype::other && (view.data || element_count(out) == 0);
}

Dtype dtype_of(const DataType& dtype) {
  return find_dtype([&](const DtypeNames& known) {
    return known.dlpack_code == dtype.code && known.bytes * 8 == dtype.bits && dtype.lanes == 1;
  });
}

std::string name_of(const DataType& dtype) {
  const std::string bits = std::to_string(dtype.bits);
  if (dtype.lanes != 1) return std::to_string(dtype.lanes) + " lanes";
  switch (dtype.code) {
    case signed_integer: return "int" + bits;
    case unsigned_integer: return "uint" + bits;
    case floating: return "float" + bits;
    case brain_floating: return "bfloat" + bits;
    case complex_number: return "complex" + bits;
    case boolean: return "bool";
    default: return "DLPack code " + std::to_string(dtype.code) + " of " + bits + " bits";
  }
}

DataType data_type_of(Dtype dtype) {
  if (dtype == Dtype::other) return {unsigned_integer, 8, 1};
  return {known_dtypes[size_t(dtype)].dlpack_code, uint8_t(8 * bytes_of(dtype)), 1};
}

bool is_host(const Device& device) {
  constexpr int32_t cuda_host = 3;
  return device.type == cpu_device || device.type == cuda_host || device.type == cuda_managed;
}

Device plain_device(const Device& device) {
  return {device.type == cuda_managed ? cuda_device : device.type, device.index};
}

Device device_of(nb::handle object) {
  const nb::object pair = object.attr("__dlpack_device__")();
  try {
    return plain_device({nb::cast<int32_t>(nb::int_(pair[0])), nb::cast<int32_t>(nb::int_(pair[1]))});
  } catch (const nb::cast_error&) {
    throw nb::type_error("its __dlpack_device__ did not give two numbers");
  }
}

Taken take(nb::handle object, std::optional<int64_t> stream) {
  const nb::object capsule = ask_for_capsule(object, stream);
  if (const auto versioned = take_content<VersionedManaged>(capsule)) {
    if (versioned->major != known_major_version) throw nb::value_error("it is of a DLPack after version 1");
    return {versioned, versioned->view, (versioned->flags & read_only_flag) != 0, (versioned->flags & copy_flag) != 0};
  }
  if (const auto managed = take_content<Managed>(capsule)) return {managed, managed->view, false, false};
  throw nb::type_error("its __dlpack__ did not give a DLPack capsule");
}

std::vector<int64_t> strides_of(const TensorView& view) {
  if (view.strides) return {view.strides, view.strides + view.ndim};
  std::vector<int64_t> strides(size_t(view.ndim));
  uint64_t dense = 1;  // an empty or absurd tensor's may wrap, and mean nothing
  for (size_t axis = strides.size(); axis-- > 0; dense *= uint64_t(view.shape[axis])) strides[axis] = int64_t(dense);
  return strides;
}

nb::object capsule_of(const TensorView& view, std::shared_ptr<void> owner, bool is_versioned) {
  return is_versioned ? make_capsule<VersionedManaged>(view, std::move(owner))
                      : make_capsule<Managed>(view, std::move(owner));
}

std::string hidden_meaning(nb::handle object) {
  if (!nb::hasattr(object, "__torch_function__")) return {};
  const std::string name = full_type_name(object);
  if (!name.starts_with("torch.Tensor of") && !name.starts_with("torch.nn.parameter.Parameter of"))
    return "its class may keep its numbers elsewhere";
  if (nb::cast<bool>(object.attr("is_neg")())) return "its numbers are negated when read; pass x.resolve_neg()";
  return {};
}

}  // namespace flatstep::dlpack

namespace flatstep {

OnDevice::~OnDevice() {
  try {
    backend_.use(before_);
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
