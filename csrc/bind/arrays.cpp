// Python arrays -> descriptors, by the buffer protocol, the cheapest way into a NumPy array, or else by DLPack. See
// bind.h.
#include <bit>

#include "bind.h"

namespace flatstep {

namespace {

// The dtype that a buffer's format string stands for; empty where it is none of these.
std::string_view dtype_name(const Py_buffer& view) {
  std::string_view format = view.format ? view.format : "B";
  constexpr bool little = std::endian::native == std::endian::little;
  constexpr std::string_view native = little ? "=@<" : "=@>";
  if (format.size() > 1 && native.find(format[0]) != std::string_view::npos) format.remove_prefix(1);
  if (format == "f") return "float32";
  if (format == "d") return "float64";
  if (format == "e") return "float16";
  if (format == "g") return "longdouble";
  if (format == "?") return "bool";
  if (format == "Zf") return "complex64";
  if (format == "Zd") return "complex128";
  return {};
}

// The type of NumPy arrays proper, which have no surprises.
bool is_plain_array(nb::handle object) {
  static PyObject* const plain = nb::object(nb::module_::import_("numpy").attr("ndarray")).release().ptr();
  return object.type().ptr() == plain;
}

// "module.Type", and the dtype of what has one.
std::string full_type_name(nb::handle object) {
  const nb::object type = nb::borrow(object.type());
  const nb::object module = type.attr("__module__"), qualified = type.attr("__qualname__");
  const std::string name = std::string(nb::str(module).c_str()) + "." + nb::str(qualified).c_str();
  if (!nb::hasattr(object, "dtype")) return name;
  const nb::object dtype = object.attr("dtype");
  return name + " of dtype " + nb::str(dtype).c_str();
}

}  // namespace

Buffer::Buffer(nb::handle object, Stream stream, int64_t leaf) {
  constexpr int flags = PyBUF_STRIDES | PyBUF_FORMAT;
  if (!is_plain_array(object) && nb::hasattr(object, "mask") && nb::hasattr(object, "filled")) {
    throw Refusal{stream, leaf, "is a " + full_type_name(object) + ", whose mask would be ignored; pass its .data", -1,
                  true};
  }
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) {
    describe(object);
    return;
  }
  PyErr_Clear();
  std::string why;
  if (nb::hasattr(object, "__dlpack__")) {
    try {
      const nb::object array = nb::module_::import_("numpy").attr("from_dlpack")(object);
      if (PyObject_GetBuffer(array.ptr(), &view_, flags) == 0) {  // the view keeps the array
        describe(array);
        return;
      }
      PyErr_Clear();
    } catch (nb::python_error& error) {
      why = std::string(" (by DLPack: ") + nb::str(error.value()).c_str() + ")";
    }
  }
  throw Refusal{stream, leaf, "is a " + full_type_name(object) + ", expected a NumPy array of numbers" + why, -1, true};
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

Buffer::Buffer(Buffer&& other) noexcept
    : view_(other.view_), dtype_(other.dtype_), unusual_(std::move(other.unusual_)) {
  other.view_.obj = nullptr;
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
          reinterpret_cast<const int64_t*>(view_.shape),
          reinterpret_cast<const int64_t*>(view_.strides),
          view_.readonly != 0};
}

}  // namespace flatstep
