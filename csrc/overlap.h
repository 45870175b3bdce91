// Whether the memory that a step writes overlaps other memory of the step. Used by Step alone.
#pragma once

#include <vector>

#include "tensor.h"

namespace flatstep {

class OverlapCheck {
 public:
  void clear(bool keeps_written);

  void add_written(const Extent& extent) {
    written_.push_back(extent);
    is_checked_ = false;
  }
  // Written too, but searched for gradients only if these are written.
  void add_state(const Extent& extent) { state_.push_back(extent); }
  void add_read(const Extent& extent) { read_.push_back(extent); }
  void add_read(const Extent& extent, const Tensor& strided) { strided_.push_back({extent, strided}); }

  // What is read is written too: no two of them may share memory.
  void write_what_is_read() { reads_are_written_ = true; }

  // Moves to this check all that `other` was to check.
  void merge(OverlapCheck& other);

  void check();  // throws ArgumentError

 private:
  struct Strided {
    Extent extent;
    Tensor tensor;
  };

  void check_written();
  template <class Touches>
  void check_read(const Extent& read, const Touches& touches) const;

  void check_reads() const;
  static bool share_elements(const Strided& a, const Strided& b);  // of which the extents overlap

  std::vector<Extent> written_, state_, read_;
  std::vector<Strided> strided_;
  bool reads_are_written_ = false;

  // Tensors seldom move between steps: what was sorted and checked last holds as long as the extents are the same.
  bool is_checked_ = true;
  bool has_sorted_state_ = false;
  std::vector<Extent> checked_written_, checked_state_, sorted_;
};

}  // namespace flatstep
