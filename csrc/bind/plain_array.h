// NumPy's arrays as they lie in memory, which costs a fraction of the buffer protocol. For bind/arrays.cpp.
#pragma once

#include <string_view>

#include "bind.h"

namespace flatstep {

// How an array object begins. That is part of NumPy's ABI; whether it is so here is asked once, of NumPy.
struct PlainArray {
  PyObject head;
  void* data;
  int axes;
  const Py_ssize_t* shape;
  const Py_ssize_t* strides;  // in bytes
  PyObject* base;
  PyObject* dtype;
  int flags;

  bool is_writable() const { return (flags & 0x400) != 0; }
};

// Of the type of NumPy's arrays proper, which have no surprises.
bool is_plain_array(nb::handle object);

// Such an array; null for other objects, and where arrays do not begin so.
const PlainArray* as_plain_array(nb::handle object);

// The name of one of the dtypes that kernels may know, of which NumPy has one object each; empty for others.
std::string_view name_of_numpy_dtype(const PyObject* dtype);

}  // namespace flatstep
