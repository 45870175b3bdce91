// The parameters of a torch optimizer that one rule steps on one device, in the step under way. For torch_step.cpp.
#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "device_step.h"

namespace flatstep {

// The numbers of a parameter group; those that are tensors on a device are not read before the step runs there.
struct GroupNumbers {
  struct OnDevice {
    int32_t number;  // as in Traced
    Tensor value;
  };
  Scalars scalars{};
  std::vector<OnDevice> on_device;
};

// What torch.amp.GradScaler passes on a device: gradients are divided by the scale, unless the flag says that they
// overflowed.
struct Scaling {
  std::optional<Tensor> scale, overflow;

  static NumberKind kind_of(const Tensor& number) {
    return number.dtype == Dtype::float64 ? NumberKind::float64 : NumberKind::float32;
  }
  DeviceNumber scale_number() const { return scale ? DeviceNumber{scale->data, kind_of(*scale)} : DeviceNumber{}; }
};

struct TorchParams : DeviceStep {
  using DeviceStep::DeviceStep;

  bool is_idle() const { return counters_.empty(); }  // in this step
  bool is_captured() const { return is_capturing(stream); }

  void begin() {
    DeviceStep::begin();
    counters_.clear();
    group_begins_ = true;
  }

  void begin_group() { group_begins_ = true; }

  // As Step::add; `count` is the tensor in which torch counts the parameter's updates. Also false if count is not a
  // single number on the device.
  bool add(Parameter& parameter, const Tensor& count, const GroupNumbers& numbers) {
    if (element_count(count) != 1 || bytes_of(count.dtype) < 4 || count.device != device) return false;
    const Counter counter{count.data, count.dtype == Dtype::float64};
    const int64_t index = parameter.index;
    parameter.row =
        is_processor() ? find_scalars(index, next_count(index, counter.get()), numbers) : int64_t(rows.size());
    if (!tensors.add(parameter)) return false;
    if (!is_processor()) rows.push_back({find_scalars(index, 0, numbers), {count.data, kind_of(count)}});
    tensors.add_state(count, 1, index, "step");
    counters_.push_back(counter);
    return true;
  }

  void prepare(const Target& target, const Scaling& scaling, bool is_capturable) {
    if (scaling.scale) {
      for (int64_t row = 0; row < int64_t(scalars.size()); ++row)
        traced.push_back({row, grad_scale_number, 1, scaling.scale_number()});
    }
    skip = scaling.overflow ? static_cast<const float*>(scaling.overflow->data) : nullptr;
    constexpr const char* stays =
        "this step would become part of a CUDA graph, but the optimizer has capturable=False: its numbers would stay "
        "as they are now; make it with capturable=True, and with lr in a tensor on the device if it is to change";
    DeviceStep::prepare(target, is_capturable ? nullptr : stays);
  }

  // Multiplies all gradients on the way in.
  void scale_gradients(double factor) {
    const DefaultFloatingPoint mode;
    for (Scalars& each : scalars) each.grad_scale *= factor;
  }

  // The step on the device takes the limits that are found there: `work` is given to one of those on a device.
  void limit(const FoundNorm* found, const NormWork* work) {
    limits = found;
    if (work) norm.emplace(*work);
  }

  // Once the step is launched. Devices count for themselves.
  void count() const {
    if (!is_processor()) return;
    for (const Counter& counter : counters_) counter.count_up();
  }

 private:
  static constexpr int32_t grad_scale_number = 1;  // in common_scalars

  // A tensor of one number in which torch counts a parameter's updates.
  struct Counter {
    void* data;
    bool is_double;

    double get() const { return is_double ? *static_cast<double*>(data) : double(*static_cast<float*>(data)); }
    void count_up() const {
      if (is_double) {
        ++*static_cast<double*>(data);
      } else {
        ++*static_cast<float*>(data);
      }
    }
  };

  static NumberKind kind_of(const Tensor& number) { return Scaling::kind_of(number); }

  // The count of the parameter's next update.
  static int64_t next_count(int64_t index, double updates) {
    constexpr double most = 0x1p62;
    if (updates >= 0 && updates < most && updates == std::floor(updates)) return int64_t(updates) + 1;
    throw ArgumentError{Operand::param, index,
                        "has a step of " + std::to_string(updates) + ", expected a whole number from 0 on"};
  }

  // The index of the group's numbers, for parameters with this count; 0 where the device counts.
  int64_t find_scalars(int64_t index, int64_t count, const GroupNumbers& numbers) {
    const auto last = int64_t(scalars.size()) - 1;
    if (!group_begins_ && scalars.back().count == count) return last;
    const auto reject = [&](const char* why) { throw ArgumentError{Operand::param, index, why}; };
    for (const GroupNumbers::OnDevice& number : numbers.on_device) {
      if (is_processor()) reject("is on the CPU, but a number of its group is on a device; pass it as a float");
      if (number.value.device != device)
        reject("is on another device than a number of its group; pass that as a float");
      traced.push_back({last + 1, number.number, 0, {number.value.data, kind_of(number.value)}});
    }
    Scalars& own = scalars.emplace_back(numbers.scalars);
    own.count = count;
    own.is_initial_step = count == 1;
    group_begins_ = false;
    return last + 1;
  }

  bool group_begins_ = true;
  std::vector<Counter> counters_;
};

}  // namespace flatstep
