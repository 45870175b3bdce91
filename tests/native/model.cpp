// See model.h.
#include "model.h"

#include <numeric>

namespace flatstep::testing {

namespace {

int64_t sum(const std::vector<int64_t>& numbers) { return std::accumulate(numbers.begin(), numbers.end(), int64_t{0}); }

constexpr int64_t one = 1, two = 2;  // strides

}  // namespace

std::unique_ptr<Model> Model::make(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed, bool has_tail) {
  if (!has_kernel(rule, layout)) return nullptr;
  return std::unique_ptr<Model>(new Model(rule, layout, std::move(lengths), seed, has_tail));
}

Model::Model(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed, bool has_tail)
    : lengths_(std::move(lengths)),
      params_(sum(lengths_) * bytes_of(layouts()[size_t(layout)].param)),
      grads_(sum(lengths_) * bytes_of(layouts()[size_t(layout)].grad) * two),
      step_(rule, slot_names(rule), {}) {
  Random random(seed);
  const LayoutDescription& formats = layouts()[size_t(layout)];
  const std::vector<SlotDescription>& slots = rules()[size_t(rule)].slots;
  params_.fill(random, true);
  grads_.fill(random, true);
  for (const SlotDescription& slot : slots)
    state_.emplace_back(sum(lengths_) * bytes_of(formats.slot(slot.role))).fill(random, false);
  const bool in_own_dtype = random.chance(50);
  const int average_bytes = formats.param == Dtype::float64 ? 8 : in_own_dtype ? bytes_of(formats.param) : 4;
  const AverageForm form = random.chance(50) ? AverageForm::interpolated : AverageForm::weighted;
  if (has_tail) {
    state_.emplace_back(sum(lengths_) * average_bytes).fill(random, true);
    step_.set_tail(TailOptions{true, in_own_dtype, form, random.pick<double>({0.3, 0.9})});
  }
  int64_t first = 0;
  for (const int64_t& length : lengths_) {
    const auto tensor = [&](const Block& block, Dtype dtype, const int64_t& stride, int64_t room = one) {
      return Tensor{block.data() + first * room * bytes_of(dtype), &length, &stride, 1, dtype, false, {}, nullptr};
    };
    const auto index = int64_t(parameters_.size());
    Parameter& parameter = parameters_.emplace_back();
    parameter.index = index;
    parameter.param = tensor(params_, formats.param, one);
    parameter.grad = tensor(grads_, formats.grad, index % 3 == 2 ? two : one, two);
    for (size_t slot = 0; slot < slots.size(); ++slot)
      parameter.state[slot] = tensor(state_[slot], formats.slot(slots[slot].role), one);
    if (has_tail) parameter.average = state_.back().data() + first * average_bytes;
    parameter.row = random.below(2);
    first += length;
  }
  scalars_ = {some_numbers(rules()[size_t(rule)], random), some_numbers(rules()[size_t(rule)], random)};
}

const std::vector<Job>& Model::jobs(const Target& target) {
  step_.begin();
  for (const Parameter& parameter : parameters_) check(step_.add(parameter), "a step takes the model's tensors");
  step_.check_overlap();
  return step_.jobs(scalars_, target);
}

std::vector<std::string> Model::images() const {
  std::vector<std::string> all = {params_.image(), grads_.image()};
  for (const Block& block : state_) all.push_back(block.image());
  return all;
}

}  // namespace flatstep::testing
