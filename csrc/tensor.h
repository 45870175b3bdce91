// A tensor as it lies in memory, and what checks ask about it. Used by readers, by Step and by devices. Knows no
// Python.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "call.h"
#include "dtype.h"

namespace flatstep {

constexpr int32_t cpu_device = 1, cuda_device = 2;

// As DLPack numbers devices.
struct Device {
  int32_t type, index;
  bool operator==(const Device&) const = default;
};

// What `shape` and `strides` point to belongs to the reader that made the tensor.
struct Tensor {
  void* data;
  const int64_t* shape;
  const int64_t* strides;  // in elements
  int32_t ndim;
  Dtype dtype;
  bool read_only;
  Device device;
  const char* dtype_name;  // for messages about Dtype::other
};

// The two tensors of a parameter that the caller of a step passes.
enum class Operand { param, grad };

// Why a tensor is rejected. The text follows the tensor's name ("has shape ..."); {other} stands for the name of the
// parameter `other`.
struct ArgumentError {
  Operand operand;
  int64_t index;  // of the parameter
  std::string text;
  int64_t other = -1;
  bool is_type_error = false;
};

// The memory from the first to behind the last byte of a tensor.
struct Extent {
  uintptr_t begin, end;
  int64_t index;     // of the parameter; -1 for a buffer of the optimizer's state
  const char* slot;  // the name of the state's slot; null where it is no state tensor
  bool operator==(const Extent&) const = default;
};

// "(2, 3)", for messages.
std::string text_of(const int64_t* numbers, int count);
std::string shape_of(const Tensor& tensor);
std::string dtype_of(const Tensor& tensor);

// -1 where the shape has more elements than memory has bytes, so that later products cannot overflow.
int64_t element_count(const Tensor& tensor);
bool is_contiguous(const Tensor& tensor);  // in C order
bool is_dense(const Tensor& tensor);       // elements fill their memory, each once, the axes in any order
bool is_aligned(const Tensor& tensor);     // to the item size
bool has_repeats(const Tensor& tensor);    // false only where no two elements share memory
bool have_same_shape(const Tensor& a, const Tensor& b);
bool have_same_strides(const Tensor& a, const Tensor& b);  // for one shape: on axes longer than 1

bool is_same_memory(const Tensor& a, const Tensor& b);  // of one dtype, lying in the same way

// The axes longer than 1, outermost in memory first.
std::vector<int> memory_order(const Tensor& tensor);

// False where the tensor's memory would lie outside of the address space.
bool find_extent(const Tensor& tensor, Extent& extent);

// Whether an element of the tensor, and not only its extent, has bytes in `other`.
bool touches(const Tensor& tensor, const Extent& extent, const Extent& other);

// Whether two strided tensors may share an element. Exact where they have the same strides, as columns of one array do.
bool may_share(const Tensor& a, const Extent& of_a, const Tensor& b, const Extent& of_b);

// How to visit a tensor along some of its axes, outermost first. What the Walk points to is this object's.
struct OwnedWalk {
  OwnedWalk(const Tensor& tensor, const std::vector<int>& axes);
  OwnedWalk(const OwnedWalk&) = delete;
  OwnedWalk& operator=(const OwnedWalk&) = delete;

  std::vector<int64_t> shape, strides;
  Walk walk;
};

}  // namespace flatstep
