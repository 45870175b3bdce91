// What all bindings share: names of types, numbers, errors and the interpreter's lock. For csrc/bind only.
#pragma once

#include <nanobind/nanobind.h>

#include <functional>
#include <string>

#include "call.h"
#include "tensor.h"

namespace flatstep {

namespace nb = nanobind;

// str(object). What UTF-8 cannot hold is escaped.
std::string text_of(nb::handle object);

// "module.Type", and the dtype of what has one.
std::string full_type_name(nb::handle object);

// An attribute; None where the object has none, or where it raises an error that is a rejection.
nb::object attribute_or_none(nb::handle object, const char* name);

// Whether a Python error says that an argument is wrong, rather than that everything must stop.
bool is_rejection(const nb::python_error& error);

// A row of Python numbers: the count, the common scalars without is_initial_step, then the rule's hyperparameters.
Scalars read_scalars(nb::handle row, size_t hyperparameters);

// Runs f with the interpreter unlocked. A daemon thread that comes back to an interpreter which is shutting down is
// ended by CPython (before 3.14) in a way that would abort the process from here, so it waits for the end instead.
void unlocked(const std::function<void()>& f);

// How messages call a parameter: a word for each operand, then its name.
struct Naming {
  const char *param, *grad;
  std::function<std::string(int64_t)> name;
};

// Raises TypeError or ValueError.
[[noreturn]] void raise(const ArgumentError& error, const Naming& naming);

}  // namespace flatstep
