// global_norm and norm_total: the norm of arrays in the processor's memory, and what it is the root of.
#include "norm.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "read_array.h"

namespace flatstep {

namespace {

// `arrays` may hold None.
GradientNorm::Result find_norm(nb::list arrays, double scale, bool largest, nb::callable name) {
  ArrayReader reader;
  GradientNorm norm;
  norm.begin();
  try {
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (arrays[i].is_none()) continue;
      const Tensor tensor = reader.read(arrays[i], Operand::grad, int64_t(i));
      check_norm(tensor, int64_t(i));
      norm.add(tensor, scale);
    }
  } catch (const ArgumentError& error) {
    raise(error, {"params", "grads", [&](int64_t index) { return nb::cast<std::string>(name(index)); }});
  }
  GradientNorm::Result found{};
  unlocked([&] { found = norm.find(chosen_target(), largest ? NormKind::largest : NormKind::two, Team::own); });
  return found;
}

// (norm, whether all numbers are finite).
std::pair<double, bool> global_norm(nb::list arrays, double scale, bool largest, nb::callable name) {
  const GradientNorm::Result found = find_norm(std::move(arrays), scale, largest, std::move(name));
  return {found.value, found.is_finite};
}

// The sum of squares or the largest magnitude, which can be combined with that of other arrays.
double norm_total(nb::list arrays, bool largest, nb::callable name) {
  return find_norm(std::move(arrays), 1, largest, std::move(name)).total;
}

}  // namespace

void bind_norm(nb::module_& module) {
  module.def("global_norm", &global_norm, nb::arg("arrays"), nb::arg("scale"), nb::arg("largest"), nb::arg("name"),
             nb::sig("def global_norm(arrays: list[typing.Any], scale: float, largest: bool, "
                     "name: collections.abc.Callable[[int], str]) -> tuple[float, bool]"));
  module.def("norm_total", &norm_total, nb::arg("arrays"), nb::arg("largest"), nb::arg("name"),
             nb::sig("def norm_total(arrays: list[typing.Any], largest: bool, "
                     "name: collections.abc.Callable[[int], str]) -> float"));
}

}  // namespace flatstep
