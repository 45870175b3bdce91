// See assembly.h.
#include "assembly.h"

#include <algorithm>

#include "describe.h"

namespace flatstep {

Assembly::Assembly() : segments_(layouts().size()) {}

void Assembly::clear() {
  walks_.clear();
  calls_.clear();
  jobs_.clear();
  for (auto& segments : segments_) segments.clear();
}

void Assembly::add(int layout, Segment segment) {
  std::vector<Segment>& segments = segments_[size_t(layout)];
  segment.first = segments.empty() ? 0 : segments.back().first + segments.back().count;
  segments.push_back(segment);
}

const Walk* Assembly::walk_over(const std::vector<int>& order, const int64_t* strides, const Array& grad) {
  const auto lies_alike = [&](int axis) { return grad.strides[axis] == strides[axis]; };
  if (std::all_of(order.begin(), order.end(), lies_alike)) return nullptr;
  auto owned = std::make_unique<OwnedWalk>();
  for (const int axis : order) {
    const int64_t length = grad.shape[axis], stride = grad.strides[axis] / grad.item_bytes;
    if (!owned->shape.empty() && owned->strides.back() == stride * length) {  // goes on where the outer axis leaves off
      owned->shape.back() *= length;
      owned->strides.back() = stride;
    } else {
      owned->shape.push_back(length);
      owned->strides.push_back(stride);
    }
  }
  owned->walk = {int(owned->shape.size()), owned->shape.data(), owned->strides.data()};
  walks_.push_back(std::move(owned));
  return &walks_.back()->walk;
}

const std::vector<Job>& Assembly::jobs(int rule, const std::vector<Scalars>& scalars, const Target& target) {
  calls_.reserve(segments_.size());  // jobs point into it
  for (size_t layout = 0; layout < segments_.size(); ++layout) {
    const std::vector<Segment>& segments = segments_[layout];
    if (segments.empty()) continue;
    calls_.push_back({segments.data(), int64_t(segments.size()), scalars.data()});
    jobs_.push_back(
        {int(layout), target.kernels[rule][layout], &calls_.back(), segments.back().first + segments.back().count});
  }
  return jobs_;
}

}  // namespace flatstep
