// See python.h.
#include "python.h"

#include <unistd.h>

#include <exception>

namespace flatstep {

std::string text_of(nb::handle object) {
  const nb::str text(object);
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
  if (!bytes.is_valid()) throw nb::python_error();
  return nb::borrow<nb::bytes>(bytes).c_str();
}

std::string full_type_name(nb::handle object) {
  const nb::object type = nb::borrow(object.type());
  const nb::object module = type.attr("__module__"), qualified = type.attr("__qualname__");
  const std::string name = text_of(module) + "." + text_of(qualified);
  if (!nb::hasattr(object, "dtype")) return name;
  return name + " of dtype " + text_of(object.attr("dtype"));
}

bool is_rejection(const nb::python_error& error) {
  return error.matches(PyExc_Exception) && !error.matches(PyExc_MemoryError);
}

// nanobind's getattr with a default would swallow what a signal's handler raises.
nb::object attribute_or_none(nb::handle object, const char* name) {
  try {
    return nb::getattr(object, name);
  } catch (const nb::python_error& error) {
    if (!is_rejection(error)) throw;
    return nb::none();
  }
}

Scalars read_scalars(nb::handle row, size_t hyperparameters) {
  const nb::tuple numbers = nb::borrow<nb::tuple>(row);
  if (numbers.size() != scalar_count + hyperparameters) throw nb::value_error("a row of scalars has another length");
  Scalars s{};
  s.count = nb::cast<int64_t>(numbers[0]);
  s.is_initial_step = s.count == 1;
  for (size_t i = 1; i < scalar_count; ++i) s.*common_scalars[i - 1].member = nb::cast<double>(numbers[i]);
  for (size_t i = 0; i < hyperparameters; ++i) s.hyperparameters[i] = nb::cast<double>(numbers[scalar_count + i]);
  return s;
}

void unlocked(const std::function<void()>& f) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr raised;
  try {
    f();
  } catch (...) {
    raised = std::current_exception();
  }
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    while (true) pause();
  }
  if (raised) std::rethrow_exception(raised);
}

void raise(const ArgumentError& error, const Naming& naming) {
  std::string text = (error.operand == Operand::param ? naming.param : naming.grad) + naming.name(error.index) + " ";
  text += error.text;
  constexpr std::string_view other = "{other}";
  if (const size_t at = text.find(other); at != std::string::npos)
    text.replace(at, other.size(), naming.param + naming.name(error.other));
  if (error.is_type_error) throw nb::type_error(text.c_str());
  throw nb::value_error(text.c_str());
}

}  // namespace flatstep
