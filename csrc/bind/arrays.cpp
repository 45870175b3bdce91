// Python arrays -> descriptors, by the buffer protocol, the cheapest way into a NumPy array, or else by DLPack. See
// bind.h.
#include "bind.h"

namespace flatstep {

namespace {

// The dtype that a buffer's format string stands for; the string itself where it is none that NumPy has a name for.
std::string_view dtype_name(const Py_buffer& view) {
  std::string_view format = view.format ? view.format : "B";
  if (format.size() > 1 && (format[0] == '=' || format[0] == '@')) format.remove_prefix(1);  // native, as without
  if (format == "f") return "float32";
  if (format == "d") return "float64";
  if (format == "e") return "float16";
  if (format == "g") return "longdouble";
  if (format == "?") return "bool";
  if (format == "Zf") return "complex64";
  if (format == "Zd") return "complex128";
  if (format.size() == 1 && std::string_view("bhilqn").find(format) != std::string_view::npos) {
    constexpr std::string_view names[] = {"", "int8", "int16", "", "int32", "", "", "", "int64"};
    if (view.itemsize <= 8) return names[view.itemsize];
  }
  if (format.size() == 1 && std::string_view("BHILQN").find(format) != std::string_view::npos) {
    constexpr std::string_view names[] = {"", "uint8", "uint16", "", "uint32", "", "", "", "uint64"};
    if (view.itemsize <= 8) return names[view.itemsize];
  }
  return format;
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
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
  PyErr_Clear();
  std::string why;
  if (nb::hasattr(object, "__dlpack__")) {
    try {
      const nb::object array = nb::module_::import_("numpy").attr("from_dlpack")(object);
      if (PyObject_GetBuffer(array.ptr(), &view_, flags) == 0) return;  // the view keeps the array
      PyErr_Clear();
    } catch (nb::python_error& error) {
      why = std::string(" (by DLPack: ") + nb::str(error.value()).c_str() + ")";
    }
  }
  throw Refusal{stream, leaf, "is a " + full_type_name(object) + ", expected a NumPy array of numbers" + why, -1, true};
}

Buffer::Buffer(Buffer&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }

Buffer::~Buffer() {
  if (view_.obj) PyBuffer_Release(&view_);
}

Array Buffer::array() const {
  static_assert(sizeof(Py_ssize_t) == sizeof(int64_t));
  return {view_.buf,
          dtype_name(view_),
          int(view_.itemsize),
          view_.ndim,
          reinterpret_cast<const int64_t*>(view_.shape),
          reinterpret_cast<const int64_t*>(view_.strides),
          view_.readonly != 0};
}

}  // namespace flatstep
