// torch tensors -> Tensors. For torch_step.cpp and read_array.cpp.
#pragma once

#include "dlpack.h"

namespace flatstep {

// Reads tensors whose memory holds all of them: of the plain types, dense or strided.
class TorchReader {
 public:
  TorchReader(nb::tuple plain_types, nb::handle exchange_api)
      : plain_types_(std::move(plain_types)), api_(dlpack::exchange_api_in(exchange_api)) {
    if (!api_)
      throw nb::import_error(
          "this torch has no DLPack exchange API of version 1; upgrade flatstep, or use an older torch");
  }

  // The stream on which torch launches its work on a device now.
  void* current_stream(const Device& device) const { return api_->current_stream(device); }

  // False where the tensor is none of those, or where its numbers are the negatives of what its memory holds (what
  // torch calls its neg bit, of which the exchange API knows nothing).
  bool read(nb::handle object, Tensor& out) {
    bool is_plain = false;
    for (nb::handle type : plain_types_) is_plain = is_plain || object.type().is(type);
    return is_plain && api_->describe(object, out) && !is_negated(object);
  }

 private:
  // torch's own method is called as the C function that it is: by name it would take twice as long.
  bool is_negated(nb::handle tensor) {
    static PyObject* const name = PyUnicode_InternFromString("is_neg");
    if (!is_neg_) {
      const nb::object method = tensor.attr(name);
      const bool is_own = PyCFunction_Check(method.ptr()) && PyCFunction_GetSelf(method.ptr()) == tensor.ptr();
      if (!is_own || PyCFunction_GetFlags(method.ptr()) != METH_NOARGS) return nb::cast<bool>(method());
      is_neg_ = PyCFunction_GetFunction(method.ptr());
    }
    const nb::object answer = nb::steal(is_neg_(tensor.ptr(), nullptr));
    if (!answer.is_valid()) throw nb::python_error();
    return answer.is(nb::handle(Py_True));
  }

  nb::tuple plain_types_;
  const dlpack::ExchangeAPI* api_;
  PyCFunction is_neg_ = nullptr;
};

}  // namespace flatstep
