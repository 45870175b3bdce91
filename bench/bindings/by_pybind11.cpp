// The entry point by pybind11, arrays by its array_t.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "entry.h"

namespace py = pybind11;

namespace {

void take(py::list arrays, py::tuple numbers) {
  using Array = py::array_t<float, py::array::c_style>;
  std::vector<View> views;
  std::vector<double> values;
  for (py::handle item : arrays) {
    if (!py::isinstance<Array>(item)) throw py::type_error(wrong_array);
    auto array = py::reinterpret_borrow<Array>(item);
    if (array.ndim() != 1) throw py::type_error(wrong_array);
    views.push_back({array.mutable_data(), size_t(array.size())});
  }
  for (py::handle number : numbers) values.push_back(py::cast<double>(number));
  step(views, values);
}

}  // namespace

PYBIND11_MODULE(by_pybind11, module) {
  module.def("nothing", &nothing);
  module.def("step", &take);
  module.def("seen", [] { return py::make_tuple(seen().elements, seen().sum); });
}
