// One step as XLA hands it over: its operands, results and attributes, read into leaves and into where the numbers lie.
// Nothing that they point to is read here: it may be on a device. For the handlers only.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <functional>
#include <string>
#include <vector>

#include "call.h"

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

// One of the numbers in the order of XlaAttributes.
double& xla_number(Scalars& scalars, size_t index);

// Whether there is a kernel for such parameters (or updates), gradients and slots, by the names of their dtypes.
bool xla_has_kernel(std::string_view rule, std::string_view written, std::string_view grad,
                    const std::vector<std::string_view>& state);

[[noreturn]] void xla_refuse(const std::string& text);  // std::invalid_argument

// Operands: the count, the traced numbers, all parameters (but see makes_update), for each slot the state of all
// leaves, all gradients. The numbers have the shape of the batch, whose axes are the first of every other operand.
// Results: what changes, in the same order; each should be where its operand is. Then, if asked for, a workspace.
class XlaStep {
 public:
  // Copies where what lies there lies.
  using Copy = std::function<void(void* to, const void* from, size_t bytes)>;

  struct Stream {
    void* data;
    xla::ffi::DataType dtype;
    int64_t bytes;  // of an element
    int64_t count;
    xla::ffi::AnyBuffer::Dimensions shape;
  };

  // One that differs from entry to entry: float32 or float64, one an entry.
  struct Number {
    size_t index;
    Stream values;
  };

  // One that is not empty. Streams hold one entry after the other.
  struct Leaf {
    int layout;
    int64_t count;  // elements of one entry
    Stream written, grad;
    std::vector<Stream> state;
  };

  // Throws std::invalid_argument.
  XlaStep(const XlaAttributes& attributes, xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets, const Copy& copy,
          bool has_workspace = false);
  XlaStep(const XlaStep&) = delete;
  XlaStep& operator=(const XlaStep&) = delete;

  int rule() const { return rule_; }
  bool makes_update() const { return attributes_.makes_update; }
  int64_t entries() const { return counts_.count; }  // of the batch
  const Scalars& fixed() const { return fixed_; }    // the numbers that are not traced
  const Stream& counts() const { return counts_; }   // int32, one an entry
  const std::vector<Number>& traced() const { return traced_; }
  const std::vector<Leaf>& leaves() const { return leaves_; }
  const Stream& workspace() const { return workspace_; }

 private:
  Stream operand(size_t index) const;
  Stream result(size_t index) const;
  Stream result(size_t index, size_t operand_index, const Copy& copy) const;
  void read_numbers();
  void read_leaf(size_t leaf, size_t leaves, const Copy& copy);
  int find_layout(const Leaf& leaf);

  XlaAttributes attributes_;
  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  int rule_;
  size_t slots_;
  Scalars fixed_{};
  Stream counts_{}, workspace_{};
  std::vector<Number> traced_;
  std::vector<Leaf> leaves_;
  std::vector<xla::ffi::DataType> dtypes_;
  int layout_ = -1;  // of those dtypes
};

}  // namespace flatstep
