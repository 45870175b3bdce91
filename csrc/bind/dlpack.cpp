// See dlpack.h.
#include "dlpack.h"

namespace flatstep::dlpack {

namespace {

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

Dtype dtype_of(const DataType& dtype) {
  return find_dtype([&](const DtypeNames& known) {
    return known.dlpack_code == dtype.code && known.bytes * 8 == dtype.bits && dtype.lanes == 1;
  });
}

std::string name_of(const DataType& dtype) {
  constexpr const char* kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};  // by code
  const std::string bits = std::to_string(dtype.bits);
  if (dtype.lanes != 1) return std::to_string(dtype.lanes) + " lanes";
  if (dtype.code >= std::size(kinds)) return "DLPack code " + std::to_string(dtype.code) + " of " + bits + " bits";
  const std::string kind = kinds[dtype.code];
  return kind == "bool" ? kind : kind + bits;
}

Array array_of(const TensorView& view, std::shared_ptr<void> owner, uint64_t flags) {
  if (view.ndim < 0) throw nb::value_error("its DLPack capsule has a negative number of axes");
  Array array{std::move(owner),
              static_cast<char*>(view.data) + view.byte_offset,
              view.device,
              name_of(view.dtype),
              {view.shape, view.shape + view.ndim},
              std::vector<int64_t>(size_t(view.ndim)),
              (flags & read_only_flag) != 0,
              (flags & copy_flag) != 0};
  int64_t dense = 1;
  for (size_t axis = array.shape.size(); axis-- > 0;) {
    array.strides[axis] = view.strides ? view.strides[axis] : dense;
    // An absurd tensor's product may be anything; its count of elements is checked later.
    if (__builtin_mul_overflow(dense, view.shape[axis], &dense)) dense = 0;
  }
  if (!view.data && element_count(array.tensor()) != 0) throw nb::type_error("it has no memory");
  return array;
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

bool ExchangeAPI::describe(nb::handle object, Tensor& out) const {
  TensorView view;
  if (describe_raw(object.ptr(), &view) != 0) {
    PyErr_Clear();
    return false;
  }
  void* const data = static_cast<char*>(view.data) + view.byte_offset;
  out = {data, view.shape, view.strides, view.ndim, dtype_of(view.dtype), false, view.device, nullptr};
  return out.dtype != Dtype::other && (view.data || element_count(out) == 0);
}

void* ExchangeAPI::current_stream(const Device& device) const {
  void* stream = nullptr;
  if (current_stream_raw(device.type, device.index, &stream) != 0) throw nb::python_error();
  return stream;
}

const ExchangeAPI* exchange_api_in(nb::handle capsule) {
  if (capsule.is_none()) return nullptr;
  const auto* header = static_cast<const Header*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!header) throw nb::python_error();
  while (header && header->major != known_major_version) header = header->previous;
  return reinterpret_cast<const ExchangeAPI*>(header);
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

Tensor Array::tensor() const {
  return {data,      shape.data(), strides.data(), int32_t(shape.size()), dtype_named(dtype),
          read_only, device,       dtype.c_str()};
}

Array take(nb::handle object, std::optional<int64_t> stream) {
  check_meaning(object);
  const nb::object capsule = ask_for_capsule(object, stream);
  if (const auto versioned = take_content<VersionedManaged>(capsule)) {
    if (versioned->major != known_major_version) throw nb::value_error("it is of a DLPack after version 1");
    return array_of(versioned->view, versioned, versioned->flags);
  }
  if (const auto managed = take_content<Managed>(capsule)) return array_of(managed->view, managed, 0);
  throw nb::type_error("its __dlpack__ did not give a DLPack capsule");
}

void check_meaning(nb::handle object) {
  if (!nb::hasattr(object, "__torch_function__")) return;
  const std::string name = full_type_name(object);
  if (!name.starts_with("torch.Tensor of") && !name.starts_with("torch.nn.parameter.Parameter of"))
    throw nb::type_error("its class may keep its numbers elsewhere");
  if (nb::cast<bool>(object.attr("is_neg")()))
    throw nb::type_error("its numbers are negated when read; pass x.resolve_neg()");
}

}  // namespace flatstep::dlpack

namespace flatstep {

std::string name_of(const Device& device) {
  if (device.type == cpu_device) return "the CPU";
  if (device.type == cuda_device) return "cuda:" + std::to_string(device.index);
  return "a device of another kind";
}

static const dlpack::ExchangeAPI* find_exchange_api(nb::handle type) {
  return dlpack::exchange_api_in(attribute_or_none(type, "__dlpack_c_exchange_api__"));
}

bool has_stream_of_type(nb::handle type) {
  const dlpack::ExchangeAPI* const api = find_exchange_api(type);
  return api && api->current_stream_raw;
}

std::optional<void*> current_stream(nb::handle array, const Device& device) {
  if (has_stream_of_type(array.type())) return find_exchange_api(array.type())->current_stream(device);
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
