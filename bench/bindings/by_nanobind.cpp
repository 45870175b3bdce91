// The entry point by nanobind: arrays by its ndarray, by Python's buffer protocol, and, as flatstep itself takes
// NumPy's, as they lie in memory.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string_view>

#include "entry.h"

namespace nb = nanobind;

namespace {

View view_ndarray(nb::handle object) {
  nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
  if (!nb::try_cast(object, array, false)) throw nb::type_error(wrong_array);
  return {array.data(), array.size()};
}

View view_buffer(nb::handle object) {
  Py_buffer buffer;
  if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_RECORDS) != 0) throw nb::python_error();
  const bool fits = buffer.ndim == 1 && std::string_view(buffer.format) == "f" && buffer.strides[0] == sizeof(float);
  const View view = fits ? View{static_cast<float*>(buffer.buf), size_t(buffer.shape[0])} : View{};
  PyBuffer_Release(&buffer);
  if (!fits) throw nb::type_error(wrong_array);
  return view;
}

// How NumPy's array objects begin.
struct PlainArray {
  PyObject head;
  float* data;
  int axes;
  const Py_ssize_t *shape, *strides;
  PyObject *base, *dtype;
};

View view_struct(nb::handle object) {
  static PyObject* const type = nb::object(nb::module_::import_("numpy").attr("ndarray")).release().ptr();
  static PyObject* const dtype = nb::object(nb::module_::import_("numpy").attr("dtype")("float32")).release().ptr();
  const auto* const array = reinterpret_cast<const PlainArray*>(object.ptr());
  if (object.type().ptr() != type || array->dtype != dtype || array->axes != 1 || array->strides[0] != sizeof(float))
    throw nb::type_error(wrong_array);
  return {array->data, size_t(array->shape[0])};
}

template <View (*view)(nb::handle)>
void take(nb::list arrays, nb::tuple numbers) {
  std::vector<View> views;
  std::vector<double> values;
  for (nb::handle item : arrays) views.push_back(view(item));
  for (nb::handle number : numbers) values.push_back(nb::cast<double>(number));
  step(views, values);
}

}  // namespace

NB_MODULE(by_nanobind, module) {
  module.def("nothing", &nothing);
  module.def("step", &take<view_ndarray>);
  module.def("step_by_buffers", &take<view_buffer>);
  module.def("step_by_struct", &take<view_struct>);
  module.def("seen", [] { return nb::make_tuple(seen().elements, seen().sum); });
}
