// Python arrays in the processor's memory -> Tensors: NumPy's as they lie in memory, others by the buffer protocol or
// by DLPack. For csrc/bind only.
#pragma once

#include <memory>
#include <vector>

#include "python.h"

namespace flatstep {

// A view of an array's memory, held until it is destroyed.
class ArrayView {
 public:
  // Throws ArgumentError where the object is no array of numbers.
  ArrayView(nb::handle object, Operand operand, int64_t index);

  Tensor tensor() const;  // points into this view

 private:
  static constexpr int short_ndim = 8;

  bool read_numpy(nb::handle object);
  bool read_exchange(nb::handle object);
  void read_buffer(nb::handle object);
  void read_capsule(nb::handle object);
  void set_layout(int ndim, const int64_t* shape, const int64_t* strides, int64_t stride_unit);
  [[noreturn]] void reject(nb::handle object, const std::string& what) const;

  // What few arrays need.
  struct More {
    std::shared_ptr<void> owner;   // of the memory
    std::vector<int64_t> numbers;  // shape and strides, where they are long
    std::string dtype_name;
  };

  More& more();

  Operand operand_;
  int64_t index_;
  nb::object object_;  // keeps the memory where no owner does
  void* data_ = nullptr;
  int ndim_ = 0;
  Dtype dtype_ = Dtype::other;
  bool read_only_ = false;
  int64_t numbers_[2 * short_ndim];  // shape and strides: copies, for the array may be reshaped while others are read
  std::unique_ptr<More> more_;
};

// Whether an object is a NumPy array that lies, writable, exactly as the tensor says: the common case, and fast.
bool is_still(nb::handle object, const Tensor& known);

// A NumPy array over another library's memory, by DLPack. Raises TypeError where that memory does not hold the array's
// numbers. Nothing should be written to what may be a copy.
nb::object share(nb::handle object, bool may_be_copy);

}  // namespace flatstep
