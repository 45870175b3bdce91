// torch tensors -> descriptors of where they lie now. For bind/torch.cpp.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "bind.h"
#include "exchange.h"
#include "streams.h"
#include "tensors.h"

namespace flatstep {

// The name of a dtype that kernels may know; empty for others.
inline std::string_view dtype_name(const dlpack::DataType& dtype) {
  if (dtype.lanes != 1) return {};
  if (dtype.code == dlpack::floating && dtype.bits == 32) return "float32";
  if (dtype.code == dlpack::floating && dtype.bits == 64) return "float64";
  if (dtype.code == dlpack::floating && dtype.bits == 16) return "float16";
  if (dtype.code == dlpack::brain_floating && dtype.bits == 16) return "bfloat16";
  return {};
}

// The description of a tensor by its own methods, for a torch that has no exchange API. Slower: microseconds.
class AskedForEverything {
 public:
  void describe(nb::handle object, dlpack::TensorView& out) {
    const nb::object shape = object.attr("shape"), strides = object.attr("stride")(), device = object.attr("device");
    const nb::object dtype = object.attr("dtype"), of_device = device.attr("type"), address = object.attr("data_ptr")();
    const std::string name = nb::str(dtype).c_str();
    std::vector<int64_t>& numbers = numbers_.emplace_back();
    for (nb::handle length : shape) numbers.push_back(nb::cast<int64_t>(length));
    const auto axes = int32_t(numbers.size());
    for (nb::handle stride : strides) numbers.push_back(nb::cast<int64_t>(stride));
    const bool is_brain = name == "torch.bfloat16";
    const int bits = is_brain || name == "torch.float16" ? 16
                     : name == "torch.float32"           ? 32
                     : name == "torch.float64"           ? 64
                                                         : 0;
    const std::string device_name = nb::str(of_device).c_str();
    const nb::object index = device.attr("index");
    out = {reinterpret_cast<void*>(nb::cast<uintptr_t>(address)),
           {device_name == "cpu"    ? dlpack::cpu
            : device_name == "cuda" ? dlpack::cuda
                                    : 0,
            index.is_none() ? 0 : nb::cast<int32_t>(index)},
           axes,
           {is_brain ? dlpack::brain_floating : dlpack::floating, uint8_t(bits), 1},
           numbers.data(),
           numbers.data() + axes,
           0};
  }
  void forget() { numbers_.clear(); }

 private:
  std::deque<std::vector<int64_t>> numbers_;  // shapes and strides, until the step is done
};

// Where the last step met its tensors. The next one will meet most of them again, in the same order, and each lies in
// five cache lines or more, here and there: asked for in time, they are there when needed. Nothing depends on it: an
// address that has gone stale is asked for in vain.
class Trail {
 public:
  void met(const PyObject* object, const int64_t* shape) {
    constexpr size_t ahead = 24;  // tensors: some four parameters
    if (now_.size() + ahead < before_.size()) ask_for(before_[now_.size() + ahead]);
    now_.push_back({object, shape});
  }

  void end() {
    before_.swap(now_);
    now_.clear();
  }

 private:
  struct Place {
    const PyObject* object;
    const int64_t* shape;  // in torch's own object, in the middle
  };

  static void ask_for(const Place& place) {
    __builtin_prefetch(place.object, 0, 2);
    const char* const middle = reinterpret_cast<const char*>(place.shape);
    for (int offset = -2 * cache_line; offset <= 2 * cache_line; offset += cache_line)
      __builtin_prefetch(middle + offset, 0, 2);
  }

  std::vector<Place> before_, now_;
};

// Looks at tensors whose memory is all that there is to them: of the plain types, dense or strided.
class Reader {
 public:
  // `exchange_api` may be None.
  Reader(nb::tuple plain_types, nb::handle exchange_api) : plain_types_(std::move(plain_types)) {
    if (exchange_api.is_none()) return;
    const dlpack::ExchangeAPI* const api = dlpack::known_version_of(exchange_api);
    if (!api) return;
    describe_ = api->describe;
    current_stream_ = api->current_stream;
  }

  // The stream on which the framework launches its work on a device now.
  void* current_stream(const Device& device) const {
    void* stream = nullptr;
    if (current_stream_) {
      if (current_stream_(device.type, device.index, &stream) != 0) throw nb::python_error();
      return stream;
    }
    const nb::object current = nb::module_::import_("torch.cuda").attr("current_stream")(device.index);
    return reinterpret_cast<void*>(nb::cast<uintptr_t>(current.attr("cuda_stream")));
  }

  // False where the tensor is none of those, or where its numbers are the negatives of what its memory holds (what
  // torch calls its neg bit, of which the exchange API knows nothing).
  bool read(nb::handle object, Tensor& out) { return read_memory(object, out) && !is_negated(object); }

  void forget() {
    asked_.forget();
    trail_.end();
  }

 private:
  bool read_memory(nb::handle object, Tensor& out) {
    bool is_plain = false;
    for (nb::handle type : plain_types_) is_plain = is_plain || object.type().is(type);
    dlpack::TensorView view;
    if (!is_plain || !describe(object, view)) return false;
    trail_.met(object.ptr(), view.shape);
    const std::string_view dtype = dtype_name(view.dtype);
    if (dtype.empty()) return false;
    out = {static_cast<char*>(view.data) + view.byte_offset,
           dtype,
           view.dtype.bits / 8,
           view.axes,
           view.shape,
           view.strides,
           {view.device.type, view.device.index}};
    return view.data || element_count(out) == 0;  // tensors inside of vmap have no memory
  }

  bool describe(nb::handle object, dlpack::TensorView& view) {
    if (describe_) {
      if (describe_(object.ptr(), &view) == 0) return true;
      PyErr_Clear();  // sparse tensors, say: whoever looks at them next says what they are
      return false;
    }
    try {
      asked_.describe(object, view);
      return true;
    } catch (nb::python_error& error) {
      if (!error.matches(PyExc_Exception)) throw;
      return false;
    }
  }

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
  PyCFunction is_neg_ = nullptr;
  int (*describe_)(void*, dlpack::TensorView*) = nullptr;
  int (*current_stream_)(int32_t, int32_t, void**) = nullptr;
  AskedForEverything asked_;
  Trail trail_;
};

}  // namespace flatstep
