// One step as XLA hands it over: its operands, results and attributes, read into jobs. For xla.cpp only.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <vector>

#include "assembly.h"
#include "describe.h"

namespace flatstep {

// What is fixed when a program is compiled.
struct XlaAttributes {
  std::string_view rule;
  bool makes_update;                     // the gradients are replaced by updates, and there are no parameters
  xla::ffi::Span<const double> numbers;  // in the order of xla_scalars(), the rule's hyperparameters after them
  xla::ffi::Span<const int32_t> traced;  // which of them come as operands instead
};

// The names of the numbers that all rules have, in their order.
std::vector<std::string_view> xla_scalars();

// Operands: the count, the traced numbers, all parameters (but see makes_update), for each slot the state of all
// leaves, all gradients. The numbers have the shape of the batch, whose axes are the first of every other operand.
// Results: what changes, in the same order; each should be where its operand is.
class XlaStep {
 public:
  XlaStep(const XlaAttributes& attributes, xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets);
  XlaStep(const XlaStep&) = delete;
  XlaStep& operator=(const XlaStep&) = delete;

  // Throws std::invalid_argument. Valid as long as this is.
  const std::vector<Job>& jobs(const Target& target);

 private:
  struct Stream {
    void* data;
    xla::ffi::DataType dtype;
    int64_t bytes;
    int64_t count;
    xla::ffi::AnyBuffer::Dimensions shape;
  };

  Stream operand(size_t index) const;
  Stream result(size_t index, size_t operand_index) const;
  void read_numbers();
  void add_leaf(size_t leaf);
  int find_layout(const Stream& written, const Stream& grad, const std::vector<Stream>& state);

  XlaAttributes attributes_;
  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  int rule_;
  size_t slots_, leaves_;
  std::vector<Scalars> scalars_;  // one an entry of the batch
  xla::ffi::AnyBuffer::Dimensions batch_;
  std::vector<xla::ffi::DataType> dtypes_;
  int layout_ = -1;  // of those dtypes
  Assembly assembly_;
};

}  // namespace flatstep
