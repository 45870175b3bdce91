// What the files of the extension module share: names of types, numbers, errors, the interpreter's lock, and who binds
// what. For csrc/bind only.
#pragma once

#include <nanobind/nanobind.h>

#include <functional>
#include <optional>
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

// The memory that an object offers by the buffer protocol. Raises where it offers none.
struct Buffer {
  Buffer(nb::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view, flags) != 0) throw nb::python_error();
  }
  ~Buffer() { PyBuffer_Release(&view); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Py_buffer view;
};

// Whether a Python error says that an argument is wrong, rather than that everything must stop.
bool is_rejection(const nb::python_error& error);

// Calls f. The text of the Python error that it raises, if that is a rejection; other errors pass.
template <class F>
std::optional<std::string> rejection_by(const F& f) {
  try {
    f();
    return std::nullopt;
  } catch (const nb::builtin_exception& error) {
    return error.what();
  } catch (nb::python_error& error) {
    if (!is_rejection(error)) throw;
    return text_of(error.value());
  }
}

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

// Calls a function when it goes, however a scope is left.
template <class F>
struct AtTheEnd {
  F call;
  ~AtTheEnd() { call(); }
};

// Type slots for a class that the garbage collector traverses. T::visit visits the objects that T refers to; T::forget
// releases them.
template <class T>
struct Collected {
  static int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nb::inst_ready(self) ? nb::inst_ptr<T>(self)->visit(visit, arg) : 0;
  }
  static int clear(PyObject* self) {
    nb::inst_ptr<T>(self)->forget();
    return 0;
  }
  static inline PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                                       {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                                       {0, nullptr}};
};

void bind_catalog(nb::module_& module);
void bind_device_memory(nb::module_& module);
void bind_device_norms(nb::module_& module);
void bind_exclusive(nb::module_& module);
void bind_step(nb::module_& module);
void bind_torch(nb::module_& module);
void bind_norm(nb::module_& module);
void bind_trees(nb::module_& module);

}  // namespace flatstep
