// The parameters of a torch optimizer that one rule steps on one device, in the step under way. For torch_step.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
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
    const Counter counter{count.data, count.dtype == Dtype::float64, parameter.index};
    parameter.row = is_processor() ? row_on_host(parameter.index, counter.get(), numbers) : int64_t(rows.size());
    if (!tensors.add(parameter)) return false;
    if (!is_processor()) rows.push_back({row_on_device(parameter.index, numbers), {count.data, kind_of(count)}});
    counters_.push_back(counter);
    return true;
  }

  // Throws ArgumentError where memory overlaps, also that of `others`: the parameters of other rules on this device.
  void check(const std::vector<TorchParams*>& others) {
    std::vector<Counter> counters = counters_;
    for (TorchParams* other : others) {
      tensors.merge_overlap(other->tensors);
      counters.insert(counters.end(), other->counters_.begin(), other->counters_.end());
    }
    tensors.check_overlap();
    check_counters(counters);
  }

  void prepare(const Target& target, const Scaling& scaling, bool is_capturable) {
    if (scaling.scale) {
      for (int64_t row = 0; row < int64_t(scalars.size()); ++row)
        traced.push_back({row, grad_scale_number, 1, {scaling.scale->data, kind_of(*scaling.scale)}});
    }
    skip = scaling.overflow ? static_cast<const float*>(scaling.overflow->data) : nullptr;
    constexpr const char* stays =
        "this step would become part of a CUDA graph, but the optimizer has capturable=False: its numbers would stay "
        "as they are now; make it with capturable=True, and with lr in a tensor on the device if it is to change";
    DeviceStep::prepare(target, is_capturable ? nullptr : stays);
  }

  // Once the step is launched. Devices count for themselves.
  void count() const {
    if (!is_processor()) return;
    for (const Counter& counter : counters_) counter.set(counter.get() + 1);
  }

 private:
  static constexpr int32_t grad_scale_number = 1;  // in common_scalars

  // A tensor of one number in which torch counts a parameter's updates.
  struct Counter {
    void* data;
    bool is_double;
    int64_t index;  // of the parameter

    double get() const { return is_double ? *static_cast<double*>(data) : double(*static_cast<float*>(data)); }
    void set(double value) const {
      if (is_double) {
        *static_cast<double*>(data) = value;
      } else {
        *static_cast<float*>(data) = float(value);
      }
    }
  };

  // Throws where two parameters count in one tensor, which a step would count up twice. They seldom move.
  void check_counters(std::vector<Counter>& counters) {
    const auto is_same = [](const Counter& a, const Counter& b) { return a.data == b.data && a.index == b.index; };
    if (std::equal(counters.begin(), counters.end(), checked_.begin(), checked_.end(), is_same)) return;
    std::vector<Counter> sorted = counters;
    std::stable_sort(sorted.begin(), sorted.end(), [](const Counter& a, const Counter& b) { return a.data < b.data; });
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i].data != sorted[i - 1].data) continue;
      throw ArgumentError{
          Operand::param, sorted[i].index,
          "has its state 'step' in one tensor with {other}, which a step would count up twice; clone it",
          sorted[i - 1].index};
    }
    checked_ = std::move(counters);
  }

  static NumberKind kind_of(const Tensor& number) {
    return number.dtype == Dtype::float64 ? NumberKind::float64 : NumberKind::float32;
  }

  // The index of the group's row for parameters with this number of updates.
  int64_t row_on_host(int64_t index, double updates, const GroupNumbers& numbers) {
    constexpr double most = 0x1p62;
    const auto reject = [&](std::string why) { throw ArgumentError{Operand::param, index, std::move(why)}; };
    if (!numbers.on_device.empty())
      reject("is on the CPU, but a number of its group is on a device; pass it as a float");
    if (!(updates >= 0 && updates < most) || updates != std::floor(updates))
      reject("has a step of " + std::to_string(updates) + ", expected a whole number from 0 on");
    const int64_t count = int64_t(updates) + 1;
    if (group_begins_ || scalars.back().count != count) {
      scalars.push_back(numbers.scalars);
      scalars.back().count = count;
      scalars.back().is_initial_step = count == 1;
      group_begins_ = false;
    }
    return int64_t(scalars.size()) - 1;
  }

  // The same where the device counts.
  int64_t row_on_device(int64_t index, const GroupNumbers& numbers) {
    if (!group_begins_) return int64_t(scalars.size()) - 1;
    const auto row = int64_t(scalars.size());
    for (const GroupNumbers::OnDevice& number : numbers.on_device) {
      if (number.value.device != device) {
        throw ArgumentError{Operand::param, index,
                            "is on another device than a number of its group; pass that as a float"};
      }
      traced.push_back({row, number.number, 0, {number.value.data, kind_of(number.value)}});
    }
    scalars.push_back(numbers.scalars);
    group_begins_ = false;
    return row;
  }

  bool group_begins_ = true;
  std::vector<Counter> counters_, checked_;
};

}  // namespace flatstep
