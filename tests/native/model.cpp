// See model.h.
#include "model.h"

#include <numeric>

namespace flatstep::testing {

namespace {

int64_t sum(const std::vector<int64_t>& numbers) { return std::accumulate(numbers.begin(), numbers.end(), int64_t{0}); }

}  // namespace

std::unique_ptr<Model> Model::make(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed) {
  const LayoutDescription& formats = layouts()[size_t(layout)];
  if (find_layout(formats.param.name, formats.param.name, formats.first_moment.name) != layout ||
      !has_kernel(rule, layout))
    return nullptr;
  return std::unique_ptr<Model>(new Model(rule, layout, std::move(lengths), seed));
}

Model::Model(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed)
    : lengths_(std::move(lengths)),
      item_bytes_(layouts()[size_t(layout)].param.bytes),
      twice_(2 * item_bytes_),
      params_(sum(lengths_) * item_bytes_),
      grads_(sum(lengths_) * item_bytes_ * 2) {
  Random random(seed);
  params_.fill(random, true);
  grads_.fill(random, true);
  const LayoutDescription& formats = layouts()[size_t(layout)];
  std::vector<Array> arrays;
  int64_t first = 0;
  for (const int64_t& length : lengths_) {
    const Array param{
        params_.data() + first * item_bytes_, formats.param.name, int(item_bytes_), 1, &length, &item_bytes_, false};
    Array grad = param;
    grad.data = grads_.data() + first * twice_;
    if (arrays.size() % 3 == 2) grad.strides = &twice_;
    arrays.push_back(param);
    grad_arrays_.push_back(grad);
    rows_.push_back(random.below(2));
    first += length;
  }
  scalars_ = {some_numbers(rules()[size_t(rule)], random), some_numbers(rules()[size_t(rule)], random)};
  plan_.emplace(rule, arrays, formats.first_moment.name);
  for (size_t slot = 0; slot < rules()[size_t(rule)].slots.size(); ++slot) {
    Block& block = state_.emplace_back(plan_->state_layout(int(slot)).bytes);
    block.fill(random, false);
    plan_->place_state(int(slot), block.data(), block.bytes());
  }
}

const std::vector<Job>& Model::jobs(const Target& target) {
  return plan_->assemble(grad_arrays_, scalars_, &rows_, target);
}

std::vector<std::string> Model::images() const {
  std::vector<std::string> all = {params_.image(), grads_.image()};
  for (const Block& block : state_) all.push_back(block.image());
  return all;
}

}  // namespace flatstep::testing
