// Tensors that are looked at anew at every step -> Calls. The counterpart of Plan (check.h) for frameworks that move
// their memory between steps. Every check of memory for them lives here. Knows no Python.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "assembly.h"
#include "call.h"

namespace flatstep {

// Whose memory it is, as DLPack numbers devices.
struct Device {
  int32_t type, index;
  bool operator==(const Device&) const = default;
};

// A tensor where it lies now. Shape and strides belong to its owner; axes may be 0, and then they are not read.
struct Tensor {
  void* data;
  std::string_view dtype;
  int item_bytes;
  int axes;
  const int64_t* shape;
  const int64_t* strides;  // in elements
  Device device;
};

int64_t element_count(const Tensor& tensor);
bool is_contiguous(const Tensor& tensor);  // in C order, the most common by far

// A parameter and what its step needs.
struct TensorLeaf {
  int64_t index;  // what refusals call it
  Tensor param, grad;
  Tensor state[max_slots];
  int64_t scalars;
};

// One step over tensors of one device. Remembers nothing of them from step to step.
class TensorStep {
 public:
  // `slots` is what refusals call the rule's slots.
  TensorStep(int rule, std::vector<std::string> slots) : rule_(rule), slots_(std::move(slots)) {}

  void clear();

  // Throws Refusal for what cannot be. False, and nothing added, where the tensors will do once they lie otherwise: a
  // parameter with gaps, or state that does not lie as its parameter does.
  bool add(const TensorLeaf& leaf);

  // Throws Refusal where a parameter shares memory with another one or with a gradient. (State is the optimizer's own.)
  void check_overlap();

  // What the other step of the same device would check is checked here instead.
  void take_extents_of(TensorStep& other);

  const std::vector<Job>& jobs(const std::vector<Scalars>& scalars, const Target& target) {
    return assembly_.jobs(rule_, scalars, target);
  }

 private:
  struct Dtypes {
    std::string_view param, grad, first_moment, second_moment;
    bool operator==(const Dtypes&) const = default;
  };

  void check_devices(const TensorLeaf& leaf) const;
  void check_shapes(const TensorLeaf& leaf) const;
  void check_alignment(const TensorLeaf& leaf) const;
  int layout_of(const TensorLeaf& leaf);

  int rule_;
  std::vector<std::string> slots_;
  Dtypes last_dtypes_;  // leaves that follow each other often have the same
  int last_layout_ = -1;
  Assembly assembly_;
  std::vector<Written> written_, read_;
};

}  // namespace flatstep
