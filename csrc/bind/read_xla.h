// A step as XLA passes it: operands, results and attributes -> Parameters, and where the numbers lie. What they point
// to may be on a device, so nothing there is read here. For the handlers only.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "step.h"

namespace flatstep {

// What is fixed when a program is compiled.
struct XlaAttributes {
  std::string_view rule;
  bool makes_update;                     // the gradients are replaced by updates, and there are no parameters
  xla::ffi::Span<const double> numbers;  // in the order of common_scalars, the rule's hyperparameters after them
  xla::ffi::Span<const int32_t> traced;  // which of them come as operands instead
  bool skips;                            // an operand says which entries change nothing
  int32_t average;                       // of parameters: none, or 1 + its AverageForm
  double decay;                          // of that
};

}  // namespace flatstep

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(flatstep::XlaAttributes, xla::ffi::StructMember<std::string_view>("rule"),
                                      xla::ffi::StructMember<bool>("makes_update"),
                                      xla::ffi::StructMember<xla::ffi::Span<const double>>("numbers"),
                                      xla::ffi::StructMember<xla::ffi::Span<const int32_t>>("traced"),
                                      xla::ffi::StructMember<bool>("skips"), xla::ffi::StructMember<int32_t>("average"),
                                      xla::ffi::StructMember<double>("decay"));

namespace flatstep {

Dtype dtype_of(xla::ffi::DataType dtype);  // Dtype::other where kernels have none of it

double& number_at(Scalars& scalars, size_t index);  // in the order of XlaAttributes::numbers

[[noreturn]] void reject_xla(const std::string& text);  // std::invalid_argument

// Operands: the count, the traced numbers, whether to skip (if asked), all parameters (but see makes_update), for each
// slot the state of all parameters, their averages (if asked), all gradients. The numbers have the shape of the batch,
// whose axes are the first of every other operand.
// Results: what changes, in the same order; each should be where its operand is. Then, if asked for, a workspace.
class XlaStep {
 public:
  // Copies from one place to another, where both lie.
  using Copy = std::function<void(void* to, const void* from, size_t bytes)>;

  struct Buffer {
    void* data;
    xla::ffi::DataType dtype;
    int64_t bytes, count;
    xla::ffi::AnyBuffer::Dimensions shape;
  };

  // One that differs from entry to entry: float32 or float64, one an entry.
  struct Number {
    size_t index;
    Buffer values;
  };

  // Throws std::invalid_argument.
  XlaStep(const XlaAttributes& attributes, xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets, const Copy& copy,
          bool has_workspace = false);
  XlaStep(const XlaStep&) = delete;
  XlaStep& operator=(const XlaStep&) = delete;

  // A parameter that is not empty, as one-dimensional tensors: what lies in the first entry; the others follow it.
  struct Sized {
    Parameter tensors;
    Step::Size size;  // of an entry
  };

  int rule;
  int64_t entries = 0;  // of the batch
  Scalars fixed{};      // the numbers that are not traced
  Buffer counts{};      // int32, one an entry
  Buffer skipped{};     // bool, one an entry; without data where none is
  std::vector<Number> traced;
  std::vector<Sized> parameters;
  Buffer workspace{};

  // The step's work for the processor, which reads the numbers.
  const std::vector<Job>& jobs(const Target& target);

 private:
  Buffer operand(size_t index) const;
  Buffer result(size_t index) const;
  Buffer result(size_t index, size_t operand_index, const Copy& copy) const;
  Tensor tensor_of(const Buffer& buffer);
  void read_numbers();
  void read_parameter(size_t index, size_t count, const Copy& copy);
  void* read_average(const Tensor& param, size_t index, size_t from, const Copy& copy);
  bool is_skipped(int64_t entry) const { return skipped.data && static_cast<const bool*>(skipped.data)[entry]; }

  XlaAttributes attributes_;
  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  size_t slots_;
  bool has_averages_;
  int64_t average_bytes_ = 0;     // of one element
  std::deque<int64_t> shapes_;    // to which tensors point
  std::vector<Scalars> scalars_;  // one an entry
  Step step_;
};

}  // namespace flatstep
