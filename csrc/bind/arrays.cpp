// Python arrays -> descriptors: NumPy's as they lie in memory, others by the buffer protocol or DLPack. See bind.h.
#include <algorithm>
#include <bit>

#include "bind.h"
#include "plain_array.h"

namespace flatstep {

using namespace std::string_view_literals;

namespace {

// The dtype that a buffer's format string stands for; empty where it is none of these.
std::string_view dtype_name(const Py_buffer& view) {
  std::string_view format = view.format ? view.format : "B"sv;
  constexpr bool little = std::endian::native == std::endian::little;
  constexpr std::string_view native = little ? "=@<"sv : "=@>"sv;
  if (format.size() > 1 && native.find(format[0]) != std::string_view::npos) format.remove_prefix(1);
  if (format == "f"sv) return "float32"sv;
  if (format == "d"sv) return "float64"sv;
  if (format == "e"sv) return "float16"sv;
  if (format == "g"sv) return "longdouble"sv;
  if (format == "?"sv) return "bool"sv;
  if (format == "Zf"sv) return "complex64"sv;
  if (format == "Zd"sv) return "complex128"sv;
  return {};
}

// Whether this NumPy's from_dlpack can ask for the memory itself.
bool can_refuse_copies(const nb::module_& numpy) {
  static const bool can =
      nb::cast<bool>(numpy.attr("lib").attr("NumpyVersion")(numpy.attr("__version__")).attr("__ge__")("2.1.0"));
  return can;
}

}  // namespace

std::string full_type_name(nb::handle object) {
  const nb::object type = nb::borrow(object.type());
  const nb::object module = type.attr("__module__"), qualified = type.attr("__qualname__");
  const std::string name = std::string(nb::str(module).c_str()) + "." + nb::str(qualified).c_str();
  if (!nb::hasattr(object, "dtype")) return name;
  const nb::object dtype = object.attr("dtype");
  return name + " of dtype " + nb::str(dtype).c_str();
}

bool is_refusal(const nb::python_error& error) {
  return error.matches(PyExc_Exception) && !error.matches(PyExc_MemoryError);
}

std::string hidden_meaning(nb::handle object) {
  if (!nb::hasattr(object, "__torch_function__")) return {};
  const std::string name = full_type_name(object);
  if (!name.starts_with("torch.Tensor of") && !name.starts_with("torch.nn.parameter.Parameter of"))
    return "its class may keep its numbers elsewhere";
  if (nb::cast<bool>(object.attr("is_neg")())) return "its numbers are negated when read; pass x.resolve_neg()";
  return {};
}

nb::object share(nb::handle object, bool may_be_copy) {
  if (const std::string why = hidden_meaning(object); !why.empty()) throw nb::type_error(why.c_str());
  const nb::module_ numpy = nb::module_::import_("numpy");
  if (may_be_copy || !can_refuse_copies(numpy)) return numpy.attr("from_dlpack")(object);
  return numpy.attr("from_dlpack")(object, nb::arg("copy") = false);
}

Buffer::Buffer(nb::handle object, Stream stream, int64_t leaf) {
  if (read_plain(object)) return;
  constexpr int flags = PyBUF_STRIDES | PyBUF_FORMAT;
  const auto refuse = [&](const std::string& what) {
    throw Refusal{stream, leaf, "is a " + full_type_name(object) + what, -1, true};
  };
  if (!is_plain_array(object) && nb::hasattr(object, "mask") && nb::hasattr(object, "filled"))
    refuse(", whose mask would be ignored; pass its .data");
  if (PyObject_CheckBuffer(object.ptr())) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) {
      if (view_.ndim > 0 && (!view_.shape || !view_.strides)) {  // ctypes leaves them out, though asked for
        PyBuffer_Release(&view_);
        refuse(" that does not say how it lies in memory; pass np.asarray(x)");
      }
      describe(object);
      return;
    }
    const nb::python_error error;
    if (!is_refusal(error)) throw error;
  }
  std::string why;
  if (nb::hasattr(object, "__dlpack__") && !is_plain_array(object)) {
    try {
      const nb::object array = share(object, true);
      if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) throw nb::python_error();
      describe(array);  // the view keeps the array
      return;
    } catch (nb::builtin_exception& error) {
      why = error.what();
    } catch (nb::python_error& error) {
      if (!is_refusal(error)) throw;
      why = nb::str(error.value()).c_str();
    }
  }
  std::string expected = ", expected a NumPy array of float16, float32 or float64";
  if (full_type_name(object).ends_with("bfloat16"))
    expected += "; bfloat16 is for mu_dtype, or for the parameters of flatstep.torch";
  refuse(expected + (why.empty() ? "" : " (by DLPack: " + why + ")"));
}

// Names the dtype: by what we know, else as the object itself does, else by the buffer's format.
void Buffer::describe(nb::handle object) {
  dtype_ = dtype_name(view_);
  if (!dtype_.empty()) return;
  unusual_ = view_.format ? view_.format : "B";
  if (nb::hasattr(object, "dtype")) {
    const nb::object dtype = object.attr("dtype");
    unusual_ = nb::str(dtype).c_str();
  }
}

// The common case. False where it is another one.
bool Buffer::read_plain(nb::handle object) {
  const PlainArray* const array = as_plain_array(object);
  if (!array || array->axes > most_axes) return false;
  dtype_ = name_of_numpy_dtype(array->dtype);
  if (dtype_.empty()) return false;
  plain_ = nb::borrow(object);
  view_ = {};
  view_.buf = array->data;
  view_.itemsize = dtype_ == "float64"sv ? 8 : dtype_ == "float32"sv ? 4 : 2;
  view_.ndim = array->axes;
  view_.readonly = !array->is_writable();
  // Copies: somebody may reshape the array while we look at others.
  std::copy_n(array->shape, array->axes, shape_);
  std::copy_n(array->strides, array->axes, strides_);
  return true;
}

Buffer::Buffer(Buffer&& other) noexcept
    : plain_(std::move(other.plain_)), view_(other.view_), dtype_(other.dtype_), unusual_(std::move(other.unusual_)) {
  other.view_.obj = nullptr;
  std::copy(std::begin(other.shape_), std::end(other.shape_), shape_);
  std::copy(std::begin(other.strides_), std::end(other.strides_), strides_);
}

Buffer::~Buffer() {
  if (view_.obj) PyBuffer_Release(&view_);
}

Array Buffer::array() const {
  static_assert(sizeof(Py_ssize_t) == sizeof(int64_t));
  return {view_.buf,
          dtype_.empty() ? std::string_view(unusual_) : dtype_,
          int(view_.itemsize),
          view_.ndim,
          reinterpret_cast<const int64_t*>(plain_.is_valid() ? shape_ : view_.shape),
          reinterpret_cast<const int64_t*>(plain_.is_valid() ? strides_ : view_.strides),
          view_.readonly != 0};
}

}  // namespace flatstep
