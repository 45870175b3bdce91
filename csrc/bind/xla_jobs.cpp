// See xla_jobs.h.
#include "xla_jobs.h"

namespace flatstep {

XlaJobs::XlaJobs(const XlaStep& step, const Target& target) {
  read_numbers(step);
  for (const XlaStep::Leaf& leaf : step.leaves()) add(leaf, step.makes_update());
  jobs_ = &assembly_.jobs(step.rule(), scalars_, target);
}

void XlaJobs::read_numbers(const XlaStep& step) {
  scalars_.assign(size_t(step.entries()), step.fixed());
  for (size_t i = 0; i < scalars_.size(); ++i) {
    scalars_[i].count = static_cast<const int32_t*>(step.counts().data)[i];
    for (const XlaStep::Number& number : step.traced()) {
      const void* const values = number.values.data;
      xla_number(scalars_[i], number.index) = number.values.dtype == xla::ffi::DataType::F64
                                                  ? static_cast<const double*>(values)[i]
                                                  : double(static_cast<const float*>(values)[i]);
    }
  }
}

void XlaJobs::add(const XlaStep::Leaf& leaf, bool makes_update) {
  const auto at = [&](const XlaStep::Stream& stream, int64_t entry) {
    return static_cast<char*>(stream.data) + entry * leaf.count * stream.bytes;
  };
  for (int64_t entry = 0; entry < int64_t(scalars_.size()); ++entry) {
    Segment segment{0, leaf.count, entry, at(leaf.written, entry), at(leaf.grad, entry), nullptr, {}, makes_update};
    for (size_t slot = 0; slot < leaf.state.size(); ++slot) segment.state[slot] = at(leaf.state[slot], entry);
    assembly_.add(leaf.layout, segment);
  }
}

}  // namespace flatstep
