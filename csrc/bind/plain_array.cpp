// See plain_array.h.
#include "plain_array.h"

namespace flatstep {

namespace {

// A new reference that is kept for good.
PyObject* kept(nb::object object) { return object.release().ptr(); }

nb::object numpy_dtype(const char* name) { return nb::module_::import_("numpy").attr("dtype")(name); }

// Whether an array that says of itself what it is begins as we think.
bool begins_so(nb::handle array) {
  const auto* const plain = reinterpret_cast<const PlainArray*>(array.ptr());
  const nb::object shape = array.attr("shape"), strides = array.attr("strides"), dtype = array.attr("dtype");
  const nb::object address = array.attr("ctypes").attr("data"), writable = array.attr("flags").attr("writeable");
  if (plain->axes != nb::cast<int>(array.attr("ndim")) || !dtype.is(plain->dtype) ||
      reinterpret_cast<uintptr_t>(plain->data) != nb::cast<uintptr_t>(address) ||
      plain->is_writable() != nb::cast<bool>(writable))
    return false;
  for (int axis = 0; axis < plain->axes; ++axis) {
    if (plain->shape[axis] != nb::cast<Py_ssize_t>(shape[axis]) ||
        plain->strides[axis] != nb::cast<Py_ssize_t>(strides[axis]))
      return false;
  }
  return true;
}

bool begin_so() {
  const nb::module_ numpy = nb::module_::import_("numpy");
  const nb::object array = numpy.attr("zeros")(nb::make_tuple(3, 5), "float32");
  const nb::object view = numpy.attr("asfortranarray")(numpy.attr("ones")(nb::make_tuple(2, 7), "float64"));
  view.attr("flags").attr("writeable") = false;
  return begins_so(array) && begins_so(view);
}

}  // namespace

bool is_plain_array(nb::handle object) {
  static PyObject* const plain = kept(nb::module_::import_("numpy").attr("ndarray"));
  return object.type().ptr() == plain;
}

const PlainArray* as_plain_array(nb::handle object) {
  static const bool is_known = begin_so();
  return is_known && is_plain_array(object) ? reinterpret_cast<const PlainArray*>(object.ptr()) : nullptr;
}

std::string_view name_of_numpy_dtype(const PyObject* dtype) {
  static const PyObject* const single = kept(numpy_dtype("float32"));
  static const PyObject* const twice = kept(numpy_dtype("float64"));
  static const PyObject* const half = kept(numpy_dtype("float16"));
  if (dtype == single) return "float32";
  if (dtype == twice) return "float64";
  if (dtype == half) return "float16";
  return {};
}

}  // namespace flatstep
