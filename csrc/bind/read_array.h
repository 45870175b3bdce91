// Python arrays in the processor's memory -> Tensors: NumPy's as they lie in memory, others by torch's exchange API,
// the buffer protocol or DLPack. For csrc/bind only.
#pragma once

#include <deque>
#include <memory_resource>
#include <vector>

#include "dlpack.h"

namespace flatstep {

// Reads arrays, and holds their memory until `release`.
class ArrayReader {
 public:
  // Throws ArgumentError where the object is no array of numbers. What the tensor points to is the reader's.
  Tensor read(nb::handle object, Operand operand, int64_t index);
  void release();

 private:
  bool read_numpy(nb::handle object, Tensor& out);
  bool read_torch(nb::handle object, Tensor& out);
  void read_other(nb::handle object, Tensor& out);
  void read_buffer(nb::handle object, Tensor& out);
  void read_capsule(nb::handle object, Tensor& out);
  void set_layout(Tensor& out, int ndim, const int64_t* shape, const int64_t* strides, int64_t unit);

  std::vector<nb::object> arrays_;
  std::deque<Buffer> buffers_;
  std::deque<dlpack::Array> capsules_;
  std::deque<std::string> dtype_names_;
  char first_numbers_[512];  // shapes and strides; those of a few arrays need no other memory
  std::pmr::monotonic_buffer_resource numbers_{first_numbers_, sizeof first_numbers_};
};

// Whether an object is a NumPy array that lies, writable, exactly as the tensor says: the common case, and fast.
bool is_still(nb::handle object, const Tensor& known);

}  // namespace flatstep
