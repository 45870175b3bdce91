// One device's part of a step over torch tensors: the processor's own, or one on a device with memory of its own. For
// bind/torch.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "device.h"
#include "tensors.h"
#include "work.h"

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

// What torch.amp.GradScaler hands over on a device: one over this, unless that says that the gradients overflowed.
struct Scaling {
  std::optional<Tensor> scale, overflow;
};

class Place {
 public:
  // Without a maker the processor itself steps.
  Place(const Device& device, int rule, std::vector<std::string> slots, const DeviceMaker* maker)
      : device_(device), rule_(rule), step_(rule, std::move(slots)) {
    if (maker) queue_ = maker->make(rule, device.index);
  }

  const Device& device() const { return device_; }
  int rule() const { return rule_; }
  bool is_processor() const { return !queue_; }
  bool is_idle() const { return rows_.empty() && counters_.empty(); }  // in this step
  bool is_captured(void* stream) const { return queue_ && queue_->is_capturing(stream); }

  void clear() {
    step_.clear();
    scalars_.clear();
    counters_.clear();
    counts_.clear();
    rows_.clear();
    traced_.clear();
    group_begins_ = true;
  }

  void begin_group() { group_begins_ = true; }

  // As TensorStep::add; `count` is the tensor in which torch counts the parameter's updates. False also where that is
  // not one number on the device.
  bool add(TensorLeaf& leaf, const Tensor& count, const GroupNumbers& numbers) {
    if (element_count(count) != 1 || count.item_bytes < 4 || count.device != device_) return false;
    leaf.scalars = queue_ ? int64_t(rows_.size()) : row_on_host(leaf.index, Counter(count).get(), numbers);
    if (!step_.add(leaf)) return false;
    if (queue_) {
      rows_.push_back({row_on_device(leaf.index, numbers), {count.data, kind_of(count)}});
    } else {
      counters_.push_back(Counter(count));
    }
    counts_.push_back({count.data, leaf.index});
    return true;
  }

  // What the other place, of the same device, has to check is checked here instead.
  void take_checks_of(Place& other) {
    step_.take_extents_of(other.step_);
    counts_.insert(counts_.end(), other.counts_.begin(), other.counts_.end());
    other.counts_.clear();
  }

  void check_overlap() { step_.check_overlap(); }

  // Throws Refusal where two parameters count in one tensor, which a step would count up twice. They seldom move.
  void check_counts() {
    if (counts_ == checked_counts_) return;
    std::vector<Count> sorted = counts_;
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i].first != sorted[i - 1].first) continue;
      throw Refusal{Stream::param, sorted[i].second,
                    "has its state 'step' in one tensor with {other}, which a step would count up twice; clone it",
                    sorted[i - 1].second};
    }
    checked_counts_ = counts_;
  }

  // All that can fail.
  void prepare(const Target& target, const Scaling& scaling, bool capturable, void* stream) {
    jobs_ = &step_.jobs(scalars_, target);
    if (!queue_) return;
    if (!capturable && is_captured(stream)) {
      throw std::runtime_error(
          "this step would become part of a CUDA graph, but the optimizer has capturable=False: its numbers would stay "
          "as they are now; make it with capturable=True, and with lr in a tensor on the device if it is to change");
    }
    if (scaling.scale) {
      for (int64_t row = 0; row < int64_t(scalars_.size()); ++row)
        traced_.push_back({row, grad_scale_number, 1, {scaling.scale->data, kind_of(*scaling.scale)}});
    }
    const auto* skip = scaling.overflow ? static_cast<const float*>(scaling.overflow->data) : nullptr;
    queue_->prepare({*jobs_, rows_, scalars_, traced_, skip, stream});
  }

  void carry_out(int threads) {
    if (queue_) {
      queue_->launch();
      return;
    }
    run(jobs_->data(), int64_t(jobs_->size()), Team::openmp, threads);
    for (const Counter& counter : counters_) counter.set(counter.get() + 1);
  }

 private:
  static constexpr int32_t grad_scale_number = 1;

  using Count = std::pair<const void*, int64_t>;  // where a parameter's updates are counted, and its leaf

  // A tensor of one number in which torch counts a parameter's updates.
  struct Counter {
    void* data;
    bool is_double;

    explicit Counter(const Tensor& tensor) : data(tensor.data), is_double(tensor.item_bytes == 8) {}
    double get() const { return is_double ? *static_cast<double*>(data) : double(*static_cast<float*>(data)); }
    void set(double value) const {
      if (is_double) {
        *static_cast<double*>(data) = value;
      } else {
        *static_cast<float*>(data) = float(value);
      }
    }
  };

  static NumberKind kind_of(const Tensor& number) {
    return number.item_bytes == 8 ? NumberKind::float64 : NumberKind::float32;
  }

  // The index of the group's row for parameters that were updated so often.
  int64_t row_on_host(int64_t leaf, double updates, const GroupNumbers& numbers) {
    constexpr double most = 0x1p62;
    if (!numbers.on_device.empty())
      throw Refusal{Stream::param, leaf, "is on the CPU, but a number of its group is on a device; pass it as a float"};
    if (!(updates >= 0 && updates < most) || updates != std::floor(updates)) {
      throw Refusal{Stream::param, leaf,
                    "has a step of " + std::to_string(updates) + ", expected a whole number from 0 on"};
    }
    const int64_t count = int64_t(updates) + 1;
    if (group_begins_ || scalars_.back().count != count) {
      scalars_.push_back(numbers.scalars);
      scalars_.back().count = count;
      scalars_.back().is_initial_step = count == 1;
      group_begins_ = false;
    }
    return int64_t(scalars_.size()) - 1;
  }

  // Likewise where the device counts.
  int64_t row_on_device(int64_t leaf, const GroupNumbers& numbers) {
    if (!group_begins_) return int64_t(scalars_.size()) - 1;
    const auto row = int64_t(scalars_.size());
    for (const GroupNumbers::OnDevice& number : numbers.on_device) {
      if (number.value.device != device_)
        throw Refusal{Stream::param, leaf, "is on another device than a number of its group; pass that as a float"};
      traced_.push_back({row, number.number, 0, {number.value.data, kind_of(number.value)}});
    }
    scalars_.push_back(numbers.scalars);
    group_begins_ = false;
    return row;
  }

  Device device_;
  int rule_;
  TensorStep step_;
  std::unique_ptr<DeviceQueue> queue_;  // null for the processor

  // Of the step under way.
  bool group_begins_ = true;
  std::vector<Scalars> scalars_;
  std::vector<Counter> counters_;
  std::vector<Count> counts_, checked_counts_;  // of the step under way, and of the last one that was checked
  std::vector<Row> rows_;
  std::vector<Traced> traced_;
  const std::vector<Job>* jobs_ = nullptr;
};

}  // namespace flatstep
