// The parameters of a flatstep.Optimizer that lie on one device, their state, and their steps. For numpy_step.cpp.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "describe.h"
#include "device_memory.h"
#include "device_step.h"
#include "read_array.h"

namespace flatstep {

using RowOfEach = std::optional<std::vector<int64_t>>;  // by parameter; without it, all take the first

class NumpyParams : public DeviceStep {
 public:
  NumpyParams(const Device& device, int rule, const DeviceBackend* backend);

  const std::vector<int64_t>& indices() const { return indices_; }  // of the parameters among all

  // `object` is a NumPy array, or DeviceMemory. Throws ArgumentError, and so does every function that reads arrays.
  void add(int64_t index, nb::handle object, std::optional<Dtype> first_moment);
  void check_new() { tensors.check_overlap(); }  // once all are there

  // Where in a buffer that begins a cache line each parameter's state of a slot lies, in bytes; how long the buffer is.
  struct StateLayout {
    std::vector<int64_t> offsets;
    int64_t bytes;
  };
  StateLayout state_layout(size_t slot) const;
  DeviceMemory allocate(int64_t bytes) const;  // on a device
  void place_state(size_t slot, nb::handle buffer, const StateLayout& layout);

  // A step: all gradients; once all devices have theirs, the parameters; then the launch.
  void begin(const std::vector<Scalars>& table);
  void take_grad(size_t position, nb::handle grad);
  void add_params(const RowOfEach& rows);
  void launch(Team team, int threads);
  void end();

  void prepare(const Target& target);

 private:
  // A parameter as it was when the optimizer was made, and has to stay; its gradient and row are those of a step.
  struct Known {
    nb::handle object;             // the stepper keeps it
    std::vector<int64_t> numbers;  // shape and strides, to which the parameter and its state point
    Parameter parameter;
    bool has_grad;
  };

  void check_unchanged(size_t position, const Tensor& now) const;
  DeviceMemory& memory(size_t position) const { return *nb::inst_ptr<DeviceMemory>(params_[position].object); }
  Tensor take_on_device(nb::handle object, Operand operand, int64_t index);
  std::optional<void*> stream_of(nb::handle array);
  void note_stream(nb::handle array);

  const std::vector<SlotDescription>& slots_;
  std::vector<int64_t> indices_;
  std::deque<Known> params_;  // stay where they are

  // Of the step under way.
  std::vector<ArrayView> held_;
  std::deque<DeviceMemory> held_on_device_;

  // On a device: the streams of the libraries, other than `stream`, that are to continue after the step.
  std::vector<void*> other_streams_;
  bool waits_ = false;    // some libraries do not say on which stream they work
  nb::handle last_type_;  // of the array read last
};

}  // namespace flatstep
