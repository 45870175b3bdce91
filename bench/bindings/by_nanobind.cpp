// The entry point by nanobind: arrays by its ndarray, and by Python's buffer protocol, as flatstep itself takes them.
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
  module.def("seen", [] { return nb::make_tuple(seen().elements, seen().sum); });
}
