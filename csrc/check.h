// Plain array descriptors -> Calls. Every check of memory lives here; kernels assume that it passed. Knows no Python.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "assembly.h"

namespace flatstep {

// The parameters and the state of one optimizer, checked once. A step then needs only its gradients and its numbers.
class Plan {
 public:
  // Throws Refusal. `first_moment` is the format of slots in that role; empty for the parameter's own.
  Plan(int rule, const std::vector<Array>& params, std::string_view first_moment);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Where in a buffer that begins a cache line each leaf's state of a slot lies, in bytes, and how long the buffer is.
  struct StateLayout {
    std::vector<int64_t> offsets;
    int64_t bytes;
  };
  StateLayout state_layout(int slot) const;

  // Lays the state of a slot into such a buffer. Throws std::invalid_argument where it is too short or not aligned.
  void place_state(int slot, void* memory, int64_t bytes);

  // Throws Refusal where a parameter no longer is what it was when the plan was made.
  void check_unchanged(int64_t leaf, const Array& param) const;

  // The work of one step on a target: leaves without a gradient are left out. `rows` gives each leaf's index into
  // `scalars`; null if all take the first. Throws Refusal. The jobs stay valid until the next call.
  const std::vector<Job>& assemble(const std::vector<std::optional<Array>>& grads, const std::vector<Scalars>& scalars,
                                   const std::vector<int64_t>* rows, const Target& target);

 private:
  struct Leaf {
    void* data;
    int layout;
    int64_t count;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;  // in bytes
    std::vector<int> order;        // axes longer than 1, outermost in memory first
    void* state[max_slots];
  };

  Leaf check_param(int64_t leaf, const Array& param, std::string_view first_moment) const;
  void check_grad(int64_t leaf, const Array& grad) const;

  int rule_;
  std::vector<Leaf> leaves_;
  std::vector<Written> written_;  // sorted by begin, disjoint
  Assembly assembly_;
};

}  // namespace flatstep
