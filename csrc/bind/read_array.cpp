// See read_array.h.
#include "read_array.h"

#include <algorithm>
#include <bit>

#include "dlpack.h"

namespace flatstep {

namespace {

// How NumPy's array object begins. That is part of NumPy's ABI; whether it is so here is asked once, of NumPy.
struct NumpyArray {
  PyObject head;
  void* data;
  int ndim;
  const Py_ssize_t* shape;
  const Py_ssize_t* strides;  // in bytes
  PyObject* base;
  PyObject* dtype;
  int flags;

  bool is_writable() const { return (flags & 0x400) != 0; }
};

static_assert(sizeof(Py_ssize_t) == sizeof(int64_t));

// A new reference that is never released.
PyObject* kept(nb::object object) { return object.release().ptr(); }

bool begins_so(nb::handle array) {
  const auto* const plain = reinterpret_cast<const NumpyArray*>(array.ptr());
  const nb::object shape = array.attr("shape"), strides = array.attr("strides"), dtype = array.attr("dtype");
  const nb::object address = array.attr("ctypes").attr("data"), writable = array.attr("flags").attr("writeable");
  if (plain->ndim != nb::cast<int>(array.attr("ndim")) || !dtype.is(plain->dtype) ||
      reinterpret_cast<uintptr_t>(plain->data) != nb::cast<uintptr_t>(address) ||
      plain->is_writable() != nb::cast<bool>(writable))
    return false;
  for (int axis = 0; axis < plain->ndim; ++axis) {
    if (plain->shape[axis] != nb::cast<Py_ssize_t>(shape[axis]) ||
        plain->strides[axis] != nb::cast<Py_ssize_t>(strides[axis]))
      return false;
  }
  return true;
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

// Whether this NumPy's from_dlpack can ask for the memory itself.
bool can_refuse_copies(const nb::module_& numpy) {
  static const bool can =
      nb::cast<bool>(numpy.attr("lib").attr("NumpyVersion")(numpy.attr("__version__")).attr("__ge__")("2.1.0"));
  return can;
}

}  // namespace

nb::object share(nb::handle object, bool may_be_copy) {
  if (const std::string why = dlpack::hidden_meaning(object); !why.empty()) throw nb::type_error(why.c_str());
  const nb::module_ numpy = nb::module_::import_("numpy");
  if (may_be_copy || !can_refuse_copies(numpy)) return numpy.attr("from_dlpack")(object);
  return numpy.attr("from_dlpack")(object, nb::arg("copy") = false);
}

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

ArrayView::ArrayView(nb::handle object, Operand operand, int64_t index) : operand_(operand), index_(index) {
  if (read_numpy(object)) return;
  if (read_exchange(object)) return;
  if (!is_plain_array(object) && nb::hasattr(object, "mask") && nb::hasattr(object, "filled"))
    reject(object, ", whose mask would be ignored; pass its .data");
  if (PyObject_CheckBuffer(object.ptr())) {
    try {
      read_buffer(object);
      return;
    } catch (const nb::python_error& error) {
      if (!is_rejection(error)) throw;
    }
  }
  std::string why;
  if (nb::hasattr(object, "__dlpack__") && !is_plain_array(object)) {
    try {
      read_capsule(object);
      return;
    } catch (const nb::builtin_exception& error) {
      why = error.what();
    } catch (nb::python_error& error) {
      if (!is_rejection(error)) throw;
      why = text_of(error.value());
    }
  }
  std::string expected = ", expected a NumPy array of float16, float32 or float64";
  if (full_type_name(object).ends_with("bfloat16"))
    expected += "; bfloat16 is for mu_dtype, or for the parameters of flatstep.torch";
  reject(object, expected + (why.empty() ? "" : " (by DLPack: " + why + ")"));
}

Tensor ArrayView::tensor() const {
  const int64_t* const shape = ndim_ > short_ndim ? more_->numbers.data() : numbers_;
  return {data_,  shape,      shape + ndim_,   ndim_,
          dtype_, read_only_, {cpu_device, 0}, more_ ? more_->dtype_name.c_str() : nullptr};
}

ArrayView::More& ArrayView::more() {
  if (!more_) more_ = std::make_unique<More>();
  return *more_;
}

void ArrayView::reject(nb::handle object, const std::string& what) const {
  throw ArgumentError{operand_, index_, "is a " + full_type_name(object) + what, -1, true};
}

// Strides are given in units of `stride_unit` to an element.
void ArrayView::set_layout(int ndim, const int64_t* shape, const int64_t* strides, int64_t stride_unit) {
  ndim_ = ndim;
  if (ndim > short_ndim) more().numbers.resize(size_t(2 * ndim));
  int64_t* const to = ndim > short_ndim ? more_->numbers.data() : numbers_;
  std::copy_n(shape, ndim, to);
  bool is_aligned = true;
  for (int axis = 0; axis < ndim; ++axis) {
    to[ndim + axis] = strides[axis] / stride_unit;
    is_aligned = is_aligned && (shape[axis] <= 1 || strides[axis] % stride_unit == 0);
  }
  if (!is_aligned && dtype_ != Dtype::other && std::find(shape, shape + ndim, 0) == shape + ndim)
    throw ArgumentError{operand_, index_, "is not aligned to its item size; pass a copy"};
}

// The common case. False where it is another one.
bool ArrayView::read_numpy(nb::handle object) {
  const NumpyArray* const array = as_numpy_array(object);
  if (!array) return false;
  dtype_ = dtype_of(array->dtype);
  if (dtype_ == Dtype::other) return false;
  object_ = nb::borrow(object);
  data_ = array->data;
  read_only_ = !array->is_writable();
  set_layout(array->ndim, reinterpret_cast<const int64_t*>(array->shape),
             reinterpret_cast<const int64_t*>(array->strides), bytes_of(dtype_));
  return true;
}

namespace {

// torch.Tensor, once torch has been imported.
PyObject* torch_tensor_type() {
  static PyObject* type = nullptr;
  if (type) return type;
  const nb::object torch = nb::module_::import_("sys").attr("modules").attr("get")("torch");
  if (!torch.is_none() && nb::hasattr(torch, "Tensor")) type = kept(torch.attr("Tensor"));
  return type;
}

}  // namespace

// A tensor of torch's, by its exchange API. False for other objects, and where its memory does not hold its numbers:
// the slower ways say why.
bool ArrayView::read_exchange(nb::handle object) {
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* const type = torch_tensor_type();
  if (!type || object.type().ptr() != type) return false;
  static const dlpack::ExchangeAPI* const api = dlpack::exchange_api_of(type);
  if (!api || nb::cast<bool>(object.attr(requires_grad)) || nb::cast<bool>(object.attr(is_neg)())) return false;
  Tensor tensor;
  if (!dlpack::describe(*api, object, tensor) || tensor.device.type != cpu_device) return false;
  dtype_ = tensor.dtype;
  object_ = nb::borrow(object);
  data_ = tensor.data;
  set_layout(tensor.ndim, tensor.shape, tensor.strides, 1);
  return true;
}

// Raises where the object offers no buffer.
void ArrayView::read_buffer(nb::handle object) {
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(object.ptr(), view.get(), PyBUF_STRIDES | PyBUF_FORMAT) != 0) throw nb::python_error();
  more().owner = std::shared_ptr<Py_buffer>(view.release(), [](Py_buffer* own) {
    PyBuffer_Release(own);
    delete own;
  });
  const Py_buffer& taken = *static_cast<Py_buffer*>(more_->owner.get());
  if (taken.ndim > 0 && (!taken.shape || !taken.strides))  // ctypes leaves them out, though asked for
    reject(object, " that does not say how it lies in memory; pass np.asarray(x)");
  dtype_ = dtype_of(taken);
  if (dtype_ == Dtype::other) more_->dtype_name = dtype_name(object, taken);
  data_ = taken.buf;
  read_only_ = taken.readonly != 0;
  set_layout(taken.ndim, reinterpret_cast<const int64_t*>(taken.shape), reinterpret_cast<const int64_t*>(taken.strides),
             std::max<int64_t>(1, taken.itemsize));
}

// Passes on the errors of the object's library.
void ArrayView::read_capsule(nb::handle object) {
  if (const std::string why = dlpack::hidden_meaning(object); !why.empty()) throw nb::type_error(why.c_str());
  const dlpack::Taken taken = dlpack::take(object);
  if (!dlpack::is_host(taken.view.device)) throw nb::type_error("it is not in the processor's memory");
  more().owner = taken.owner;
  dtype_ = dlpack::dtype_of(taken.view.dtype);
  if (dtype_ == Dtype::other || dtype_ == Dtype::bfloat16) more_->dtype_name = dlpack::name_of(taken.view.dtype);
  data_ = static_cast<char*>(taken.view.data) + taken.view.byte_offset;
  read_only_ = taken.read_only;
  const std::vector<int64_t> strides = dlpack::strides_of(taken.view);
  set_layout(taken.view.ndim, taken.view.shape, strides.data(), 1);
  if (!taken.view.data && element_count(tensor()) != 0) throw nb::type_error("it has no memory");
}

}  // namespace flatstep
