// The leaves of an optimizer that lie on one device, and who steps them there. For bind/step.cpp.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "bind.h"
#include "device_memory.h"
#include "work.h"

namespace flatstep {

using Rows = std::optional<std::vector<int64_t>>;

class LeafGroup {
 public:
  // Without a maker the processor itself steps.
  LeafGroup(int rule, const Device& device, const DeviceMaker* maker)
      : rule_(rule), device_(device), maker_(maker), queue_(maker ? maker->make(rule, device.index) : nullptr) {}

  const Device& device() const { return device_; }
  bool is_processor() const { return !queue_; }
  const std::vector<int64_t>& leaves() const { return leaves_; }  // by their numbers among all

  // `param` is an array of NumPy's, or DeviceMemory. First all leaves, then their plan, which throws Refusal.
  void add(int64_t leaf, nb::handle param);
  void make_plan(std::string_view first_moment);

  // Where a slot's state lies, and the memory for it: the processor's is the caller's, a device's is made here.
  Plan::StateLayout state_layout(int slot) const { return plan_->state_layout(slot); }
  void place_state(int slot, nb::handle buffer);
  DeviceMemory allocate_state(int slot);

  // A step: gradients by position in `leaves`; the check of parameters once all groups have theirs; then the work. Each
  // may throw, Refusal too.
  void begin();
  void take_grad(size_t position, nb::handle grad);
  void check_params();
  void assemble(const std::vector<Scalars>& scalars, const Rows& rows, const Target& target);
  void end();

  // Of what was assembled, and without Python: all that can fail, then the rest.
  void prepare(const std::vector<Scalars>& scalars);
  void carry_out(Team team);

  const std::vector<Job>& jobs() const { return *jobs_; }

 private:
  // Calls f; its refusals come to speak of leaves by their numbers among all.
  template <class F>
  void among_all(F&& f) const;

  DeviceMemory& memory(size_t position) const { return *nb::inst_ptr<DeviceMemory>(params_[position]); }
  const DeviceMemory& take(nb::handle object, Stream stream, int64_t leaf);
  std::optional<void*> stream_of(nb::handle array);
  void meet(nb::handle array);

  int rule_;
  Device device_;
  const DeviceMaker* maker_;
  std::shared_ptr<DeviceQueue> queue_;
  std::vector<int64_t> leaves_;
  std::vector<nb::handle> params_;  // whoever has the group keeps them
  std::optional<Plan> plan_;

  // Of the step under way; what was taken stays put until its end.
  std::vector<std::optional<Array>> grads_;
  std::vector<Buffer> held_;
  std::deque<DeviceMemory> held_on_device_;
  std::vector<int64_t> own_rows_;
  const std::vector<Job>* jobs_ = nullptr;

  // On a device: the stream that is current for the library of the first leaf, and those of other libraries whose
  // arrays take part.
  void* stream_ = nullptr;
  std::vector<void*> other_streams_;
  bool waits_ = false;    // there are libraries that do not say on which stream they are to go on
  nb::handle last_type_;  // of the array met last
};

}  // namespace flatstep
