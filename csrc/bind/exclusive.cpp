// Lets one caller at a time use an optimizer. Python calls the steps of numpy_step.cpp and torch_step.cpp within `run`.
#include <atomic>

#include "python.h"
#include "work.h"

namespace flatstep {

namespace {

// A second caller gets a RuntimeError and does not wait. After a fork during a call the child has that call's half-done
// work, and its calls raise a RuntimeError that says so.
//
// Between taking and giving back lies nothing but the call of a function, in C: a signal's handler can raise between
// any two of Python's own instructions, and so before or after all that a `with` or a `finally` does.
class Exclusive {
 public:
  // False, with a Python error set, where another is inside.
  bool take() {
    int found = free;
    if (inside_.compare_exchange_strong(found, forks(), std::memory_order_acquire)) return true;
    PyErr_SetString(
        PyExc_RuntimeError,
        found == forks()
            ? "this optimizer is in use: by a step of another thread, or by the step that calls this schedule; give "
              "each thread an optimizer of its own, or take turns"
            : "this process was forked while another thread was in a step of this optimizer, so that its parameters "
              "and state may be half updated here; make another optimizer, or fork between steps");
    return false;
  }
  void give_back() { inside_.store(free, std::memory_order_release); }

 private:
  static constexpr int free = -1;
  std::atomic<int> inside_{free};  // forks() of the caller
};

// function(*args, **kwargs), as the only caller. No function of nanobind's, and no destructor: before Python 3.14 a
// daemon thread is ended inside of the call, at the interpreter's end, by unwinding its stack, which aborts the process
// where C++ would catch that or forbids it.
PyObject* run(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  if (count < 1) {
    PyErr_SetString(PyExc_TypeError, "run() takes a function");
    return nullptr;
  }
  Exclusive* const exclusive = nb::inst_ptr<Exclusive>(self);
  if (!exclusive->take()) return nullptr;
  PyObject* const result = PyObject_Vectorcall(arguments[0], arguments + 1, size_t(count - 1), keywords);
  exclusive->give_back();
  return result;
}

PyMethodDef methods[] = {{"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run)),
                          METH_FASTCALL | METH_KEYWORDS, "run($self, function, /, *args, **kwargs)\n--\n\n"},
                         {nullptr, nullptr, 0, nullptr}};
PyType_Slot slots[] = {{Py_tp_methods, methods}, {0, nullptr}};

}  // namespace

void bind_exclusive(nb::module_& module) {
  nb::class_<Exclusive>(module, "Exclusive", nb::type_slots(slots)).def(nb::init<>());
}

}  // namespace flatstep
