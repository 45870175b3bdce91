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
};

double& number_at(Scalars& scalars, size_t index);  // in the order of XlaAttributes::numbers

[[noreturn]] void reject_xla(const std::string& text);  // std::invalid_argument

// Operands: the count, the traced numbers, all parameters (but see makes_update), for each slot the state of all
// parameters, all gradients. The numbers have the shape of the batch, whose axes are the first of every other operand.
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

  // Throws std::invalid_argument, or ArgumentError.
  XlaStep(const XlaAttributes& attributes, xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets, const Copy& copy,
          bool has_workspace = false);
  XlaStep(const XlaStep&) = delete;
  XlaStep& operator=(const XlaStep&) = delete;

  int rule() const { return rule_; }
  int64_t entries() const { return counts_.count; }  // of the batch
  const Scalars& fixed() const { return fixed_; }    // the numbers that are not traced
  const Buffer& counts() const { return counts_; }   // int32, one an entry
  const std::vector<Number>& traced() const { return traced_; }
  const Buffer& workspace() const { return workspace_; }

  // Those that are not empty, as one-dimensional tensors: what lies in the first entry; the others follow it.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  int64_t elements(const Parameter& parameter) const { return *parameter.param.shape; }  // of an entry
  int layout_of(const Parameter& parameter) { return step_.size_of(parameter).layout; }

  // The step's work for the processor, which reads the numbers.
  const std::vector<Job>& jobs(const Target& target);

 private:
  Buffer operand(size_t index) const;
  Buffer result(size_t index) const;
  Buffer result(size_t index, size_t operand_index, const Copy& copy) const;
  Tensor tensor_of(const Buffer& buffer);
  void read_numbers();
  void read_parameter(size_t index, size_t parameters, const Copy& copy);

  XlaAttributes attributes_;
  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  int rule_;
  size_t slots_;
  Scalars fixed_{};
  Buffer counts_{}, workspace_{};
  std::vector<Number> traced_;
  std::deque<int64_t> shapes_;  // to which tensors point
  std::vector<Parameter> parameters_;
  std::vector<Scalars> scalars_;  // one an entry
  Step step_;
};

}  // namespace flatstep
