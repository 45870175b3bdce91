// One step: tensors -> the jobs of kernels. Every check of memory is made here, once for all front ends; kernels assume
// that it passed. Knows no Python.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "overlap.h"
#include "tail.h"
#include "targets.h"
#include "work.h"

namespace flatstep {

// One parameter's part of a step.
struct Parameter {
  int64_t index;  // what errors call it
  Tensor param, grad;
  Tensor state[max_slots];
  int64_t row;  // of the numbers
  bool makes_update = false;
  void* average = nullptr;  // that lies as the parameter does; see TailOptions
};

// What differs between front ends.
struct StepOptions {
  bool grad_may_differ_in_dtype = true;  // from its parameter
  bool grad_may_be_param = true;         // the same memory: each element is read before it is written
  bool has_fixed_memory = false;         // of parameters and state, that is: see fix_memory
};

// What a step does besides the update.
struct TailOptions {
  bool zeroes_gradients = false;
  bool average_in_own_dtype = false;  // the parameter's; else that in which steps compute
  AverageForm form = AverageForm::interpolated;
  double decay = 0;  // of the averages that parameters have
};

// Throws ArgumentError where no optimizer of the rule can have the parameter; returns its layout. `first_moment` is the
// dtype of slots in that role; without it the parameter's own.
int check_new_parameter(int rule, int64_t index, const Tensor& param, std::optional<Dtype> first_moment);

// The steps of one rule on one device. Memory is kept from step to step, so that steps allocate nothing.
class Step {
 public:
  // `slots` are the names of the rule's slots, for messages.
  Step(int rule, std::vector<std::string> slots, StepOptions options);
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  // Of all steps from here on; none: nothing.
  void set_tail(const std::optional<TailOptions>& options) { tail_ = options; }

  void begin();

  // Throws ArgumentError. Returns false and adds nothing where the tensors would be accepted with other strides: a
  // parameter with gaps, or state that does not lie as its parameter does.
  bool add(const Parameter& parameter);

  // Gives a parameter its average, before `add`, which takes both. Throws ArgumentError. Returns false where the
  // average does not lie as its parameter does.
  bool set_average(Parameter& parameter, const Tensor& average);

  // Memory that belongs to a parameter's state, and that the caller writes.
  void add_state(const Tensor& dense, int64_t count, int64_t index, const char* slot);

  // Memory of parameters or state that all steps may write. Then `add` does not look for overlaps of them, but only of
  // gradients with all that is fixed.
  void fix_memory(const Extent& extent) { overlap_.add_written(extent); }

  // Throws ArgumentError where written memory overlaps other memory of the step.
  void check_overlap() { overlap_.check(); }

  // Moves the overlap checks of another step, on the same device, into this one.
  void merge_overlap(Step& other) { overlap_.merge(other.overlap_); }

  // Sets the gradients of what was added to zero, if the tail does. For a step that is skipped.
  void zero_gradients_if_asked(const Target& target) const;

  // The work of what was added. Valid until `begin`.
  const std::vector<Job>& jobs(const std::vector<Scalars>& scalars, const Target& target);

  // The layout of the kernel for the parameter's dtypes, and the number of its elements. Throws ArgumentError where the
  // dtypes have no kernel or the shapes differ.
  struct Size {
    int layout;
    int64_t count;
  };
  Size size_of(const Parameter& parameter);

  // Adds a parameter of that size without any check: for entries of a batch, which are dense, aligned and apart.
  Segment& append(const Size& size, const Parameter& parameter);

 private:
  template <class Fits>
  void check_each(const Parameter& parameter, const Fits& fits, const char* why) const;
  void check_shapes(const Parameter& parameter) const;
  int find_layout(const Parameter& parameter);
  [[noreturn]] void reject_dtypes(const Parameter& parameter) const;
  void check_zeroed(const Parameter& parameter);
  const Walk* walk_over(const Tensor& param, const Tensor& grad);

  int rule_;
  std::vector<std::string> slots_;
  StepOptions options_;
  std::array<Dtype, 2 + max_slots> last_dtypes_{};  // neighbours often have the same
  int last_layout_ = -1;
  OverlapCheck overlap_;
  std::optional<TailOptions> tail_;
  std::vector<Tail> tails_;                     // by layout
  std::vector<std::vector<Segment>> segments_;  // by layout
  std::vector<Call> calls_;
  std::vector<Job> jobs_;
  std::deque<OwnedWalk> walks_;
};

}  // namespace flatstep
