// What the files of the extension module share. For csrc/bind only.
#pragma once

#include <nanobind/nanobind.h>

#include "check.h"

namespace flatstep {

namespace nb = nanobind;

// A borrowed view of an object's memory, released on destruction. What `array` returns points into it.
class Buffer {
 public:
  // Throws Refusal where the object offers neither.
  Buffer(nb::handle object, Stream stream, int64_t leaf);
  Buffer(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  Array array() const;

 private:
  static constexpr int most_axes = 8;  // of what is read in the shortest way

  bool read_plain(nb::handle object);
  void describe(nb::handle object);

  nb::object plain_;                                  // an array of NumPy's, held instead of what `view_` would
  Py_ssize_t shape_[most_axes], strides_[most_axes];  // of `plain_`
  Py_buffer view_;
  std::string_view dtype_;
  std::string unusual_;  // the dtype's name where it is none that arrays.cpp knows
};

// "module.Type", and the dtype of what has one.
std::string full_type_name(nb::handle object);

// Whether a pending or caught Python error says that an object will not do, rather than that everything must stop.
bool is_refusal(const nb::python_error& error);

// Why a torch tensor's memory is not what the tensor is; empty where it is, and for other objects.
std::string hidden_meaning(nb::handle object);

// A NumPy array over another library's memory, by DLPack. Raises TypeError where that memory is not what it means. To
// what may be a copy, nobody should write.
nb::object share(nb::handle object, bool may_be_copy);

// Type slots of a class of which the garbage collector asks `visit`, for whatever may lead back to it, and `forget`.
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
void bind_limit(nb::module_& module);
void bind_step(nb::module_& module);
void bind_torch(nb::module_& module);
void bind_trees(nb::module_& module);

}  // namespace flatstep
