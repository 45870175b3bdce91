// See read_array.h.
#include "read_array.h"

#include <nanobind/stl/vector.h>

#include <algorithm>
#include <bit>

#include "read_torch.h"

namespace flatstep {

namespace {

// How NumPy's array object begins. That is part of NumPy's ABI; whether it is so here is asked once, of NumPy.
struct NumpyArray {
  PyObject head;
  void* data;
  int ndim;
  const int64_t* shape;
  const int64_t* strides;  // in bytes
  PyObject* base;
  PyObject* dtype;
  int flags;

  bool is_writable() const { return (flags & 0x400) != 0; }
};

static_assert(sizeof(Py_ssize_t) == sizeof(int64_t));  // of which NumPy's are

// A new reference that is never released.
PyObject* kept(nb::object object) { return object.release().ptr(); }

bool begins_so(nb::handle array) {
  using Numbers = std::vector<int64_t>;
  const auto* const plain = reinterpret_cast<const NumpyArray*>(array.ptr());
  const nb::object address = array.attr("ctypes").attr("data"), writable = array.attr("flags").attr("writeable");
  return plain->ndim == nb::cast<int>(array.attr("ndim")) && array.attr("dtype").is(plain->dtype) &&
         reinterpret_cast<uintptr_t>(plain->data) == nb::cast<uintptr_t>(address) &&
         plain->is_writable() == nb::cast<bool>(writable) &&
         Numbers(plain->shape, plain->shape + plain->ndim) == nb::cast<Numbers>(array.attr("shape")) &&
         Numbers(plain->strides, plain->strides + plain->ndim) == nb::cast<Numbers>(array.attr("strides"));
}

bool arrays_begin_so() {
  const nb::module_ numpy = nb::module_::import_("numpy");
  const nb::object array = numpy.attr("zeros")(nb::make_tuple(3, 5), "float32");
  const nb::object view = numpy.attr("asfortranarray")(numpy.attr("ones")(nb::make_tuple(2, 7), "float64"));
  view.attr("flags").attr("writeable") = false;
  return begins_so(array) && begins_so(view);
}

// Of the type of NumPy's own arrays, not of a class derived from it.
bool is_plain_array(nb::handle object) {
  static PyObject* const plain = kept(nb::module_::import_("numpy").attr("ndarray"));
  return object.type().ptr() == plain;
}

// Null for other objects, and where arrays do not begin as we think.
const NumpyArray* as_numpy_array(nb::handle object) {
  static const bool is_known = arrays_begin_so();
  return is_known && is_plain_array(object) ? reinterpret_cast<const NumpyArray*>(object.ptr()) : nullptr;
}

// NumPy has one object for each of these dtypes; ml_dtypes' bfloat16 is read by no kernel of the NumPy face.
Dtype dtype_of(const PyObject* dtype) {
  static const auto own = [] {
    std::vector<const PyObject*> all;
    const nb::object make = nb::module_::import_("numpy").attr("dtype");
    for (const DtypeNames& known : known_dtypes)
      all.push_back(known.buffer_format ? kept(make(std::string(known.name).c_str())) : nullptr);
    return all;
  }();
  return Dtype(std::find(own.begin(), own.end(), dtype) - own.begin());
}

// The dtype for which a buffer's format string stands.
Dtype dtype_of(const Py_buffer& view) {
  constexpr std::string_view native = std::endian::native == std::endian::little ? "=@<" : "=@>";
  std::string_view format = view.format ? view.format : "B";
  if (format.size() > 1 && native.find(format[0]) != std::string_view::npos) format.remove_prefix(1);
  return find_dtype([=](const DtypeNames& known) { return format == std::string_view(&known.buffer_format, 1); });
}

// How messages call the dtype of a buffer that no kernel knows.
std::string dtype_name(nb::handle object, const Py_buffer& view) {
  std::string name = view.format ? view.format : "B";
  if (nb::hasattr(object, "dtype")) name = text_of(object.attr("dtype"));
  const bool is_swapped = name.size() > 1 && (name[0] == '>' || name[0] == '<') &&
                          std::string_view("fciu").find(name[1]) != std::string_view::npos;
  return is_swapped ? name + ", whose byte order is not this machine's" : name;
}

// Reads torch's tensors. Null before torch has been imported, and where it has no exchange API.
TorchReader* torch_reader() {
  static TorchReader* reader = nullptr;
  if (reader) return reader;
  const nb::object torch = nb::module_::import_("sys").attr("modules").attr("get")("torch");
  const nb::object type = attribute_or_none(torch, "Tensor");
  const nb::object api = attribute_or_none(type, "__dlpack_c_exchange_api__");
  if (dlpack::exchange_api_in(api)) reader = new TorchReader(nb::make_tuple(type), api);
  return reader;
}

[[noreturn]] void reject(nb::handle object, const std::string& what) {
  throw ArgumentError{{}, {}, "is a " + full_type_name(object) + what, -1, true};
}

}  // namespace

bool is_still(nb::handle object, const Tensor& known) {
  const NumpyArray* const array = as_numpy_array(object);
  if (!array || array->data != known.data || !array->is_writable() || array->ndim != known.ndim ||
      dtype_of(array->dtype) != known.dtype)
    return false;
  for (int axis = 0; axis < known.ndim; ++axis) {
    if (array->shape[axis] != known.shape[axis] || array->strides[axis] != known.strides[axis] * bytes_of(known.dtype))
      return false;
  }
  return true;
}

Tensor ArrayReader::read(nb::handle object, Operand operand, int64_t index) {
  Tensor out{};
  out.device = {cpu_device, 0};
  try {
    if (!read_numpy(object, out) && !read_torch(object, out)) read_other(object, out);
  } catch (ArgumentError& error) {
    error.operand = operand;
    error.index = index;
    throw;
  }
  return out;
}

void ArrayReader::release() {
  arrays_.clear();
  buffers_.clear();
  capsules_.clear();
  dtype_names_.clear();
  numbers_.release();
}

// Strides are given in units of `unit` to an element. Both are copied, for the array may be reshaped while others are
// read.
void ArrayReader::set_layout(Tensor& out, int ndim, const int64_t* shape, const int64_t* strides, int64_t unit) {
  void* const memory = numbers_.allocate(size_t(2 * ndim) * sizeof(int64_t), alignof(int64_t));
  int64_t* const copy = std::copy_n(shape, ndim, static_cast<int64_t*>(memory));
  bool is_aligned = true;
  for (int axis = 0; axis < ndim; ++axis) {
    copy[axis] = strides[axis] / unit;
    is_aligned = is_aligned && (shape[axis] <= 1 || strides[axis] % unit == 0);
  }
  out.ndim = ndim;
  out.shape = copy - ndim;
  out.strides = copy;
  if (!is_aligned && out.dtype != Dtype::other && std::find(shape, shape + ndim, 0) == shape + ndim)
    throw ArgumentError{{}, {}, "is not aligned to its item size; pass a copy"};
}

// The common case. False where it is another one.
bool ArrayReader::read_numpy(nb::handle object, Tensor& out) {
  const NumpyArray* const array = as_numpy_array(object);
  if (!array) return false;
  out.dtype = dtype_of(array->dtype);
  if (out.dtype == Dtype::other) return false;
  arrays_.push_back(nb::borrow(object));
  out.data = array->data;
  out.read_only = !array->is_writable();
  set_layout(out, array->ndim, array->shape, array->strides, bytes_of(out.dtype));
  return true;
}

// False for other objects, and where a tensor's memory does not hold its numbers: the slower ways say why.
bool ArrayReader::read_torch(nb::handle object, Tensor& out) {
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  TorchReader* const torch = torch_reader();
  Tensor found;
  if (!torch || !torch->read(object, found) || found.device.type != cpu_device ||
      nb::cast<bool>(object.attr(requires_grad)))
    return false;
  arrays_.push_back(nb::borrow(object));
  out = found;
  set_layout(out, found.ndim, found.shape, found.strides, 1);
  return true;
}

void ArrayReader::read_other(nb::handle object, Tensor& out) {
  const bool is_plain = is_plain_array(object);
  if (!is_plain && nb::hasattr(object, "mask") && nb::hasattr(object, "filled"))
    reject(object, ", whose mask would be ignored; pass its .data");
  if (PyObject_CheckBuffer(object.ptr()) && !rejection_by([&] { read_buffer(object, out); })) return;
  std::optional<std::string> why;
  if (!is_plain && nb::hasattr(object, "__dlpack__")) {
    why = rejection_by([&] { read_capsule(object, out); });
    if (!why) return;
  }
  std::string expected = ", expected a NumPy array of float16, float32 or float64";
  if (full_type_name(object).ends_with("bfloat16"))
    expected += "; bfloat16 is for mu_dtype, or for the parameters of flatstep.torch";
  reject(object, expected + (why ? " (by DLPack: " + *why + ")" : ""));
}

void ArrayReader::read_buffer(nb::handle object, Tensor& out) {
  const Py_buffer& view = buffers_.emplace_back(object, PyBUF_STRIDES | PyBUF_FORMAT).view;
  if (view.ndim > 0 && (!view.shape || !view.strides))  // ctypes leaves them out, though asked for
    reject(object, " that does not say how it lies in memory; pass np.asarray(x)");
  out.dtype = dtype_of(view);
  if (out.dtype == Dtype::other) out.dtype_name = dtype_names_.emplace_back(dtype_name(object, view)).c_str();
  out.data = view.buf;
  out.read_only = view.readonly != 0;
  set_layout(out, view.ndim, reinterpret_cast<const int64_t*>(view.shape),
             reinterpret_cast<const int64_t*>(view.strides), std::max<int64_t>(1, view.itemsize));
}

void ArrayReader::read_capsule(nb::handle object, Tensor& out) {
  const dlpack::Array& array = capsules_.emplace_back(dlpack::take(object));
  if (!dlpack::is_host(array.device)) throw nb::type_error("it is not in the processor's memory");
  out = array.tensor();
  out.device = {cpu_device, 0};
}

}  // namespace flatstep
