// What the files of the extension module share. For csrc/bind only.
#pragma once

#include "python.h"

namespace flatstep {

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
void bind_exclusive(nb::module_& module);
void bind_step(nb::module_& module);
void bind_torch(nb::module_& module);
void bind_trees(nb::module_& module);

}  // namespace flatstep
