// See overlap.h.
#include "overlap.h"

#include <algorithm>

namespace flatstep {

namespace {

bool starts_earlier(const Extent& a, const Extent& b) { return a.begin < b.begin; }

void move_to(std::vector<Extent>& to, std::vector<Extent>& from) {
  to.insert(to.end(), from.begin(), from.end());
  from.clear();
}

// Throws ArgumentError for two extents, in the order of memory, that overlap.
[[noreturn]] void reject(const Extent& a, const Extent& b) {
  const auto& [first, second] = std::minmax(a, b, [](const Extent& x, const Extent& y) { return x.index < y.index; });
  const std::string state = second.slot ? "has a state " + std::string(second.slot) + " that " : "";
  const std::string of_first = first.slot ? "the state " + std::string(first.slot) + " of {other}" : "{other}";
  throw ArgumentError{Operand::param, second.index,
                      state + "shares memory with " + of_first + "; each parameter needs memory of its own",
                      first.index};
}

}  // namespace

void OverlapCheck::clear(bool keeps_written) {
  if (!keeps_written) {
    is_checked_ = is_checked_ && written_.empty();
    written_.clear();
  }
  state_.clear();
  read_.clear();
  strided_.clear();
  reads_are_written_ = false;
}

void OverlapCheck::merge(OverlapCheck& other) {
  is_checked_ = other.is_checked_ = false;
  reads_are_written_ = reads_are_written_ || other.reads_are_written_;
  move_to(written_, other.written_);
  move_to(state_, other.state_);
  move_to(read_, other.read_);
  strided_.insert(strided_.end(), other.strided_.begin(), other.strided_.end());
  other.strided_.clear();
}

void OverlapCheck::check() {
  const bool has_changed = !is_checked_ && (written_ != checked_written_ || state_ != checked_state_);
  if (has_changed || has_sorted_state_ != reads_are_written_) check_written();
  is_checked_ = true;
  for (const Extent& read : read_) check_read(read, [](const Extent&) { return true; });
  for (const Strided& read : strided_)
    check_read(read.extent, [&](const Extent& written) { return touches(read.tensor, read.extent, written); });
  if (reads_are_written_) check_reads();
}

void OverlapCheck::check_reads() const {
  std::vector<Strided> all = strided_;
  for (const Extent& dense : read_) all.push_back({dense, {}});
  std::ranges::sort(all, starts_earlier, &Strided::extent);
  std::vector<const Strided*> open;  // those that reach beyond the begin of the next
  for (const Strided& own : all) {
    std::erase_if(open, [&](const Strided* before) { return before->extent.end <= own.extent.begin; });
    for (const Strided* before : open) {
      if (!share_elements(*before, own)) continue;
      const auto [first, second] = std::minmax(own.extent.index, before->extent.index);
      throw ArgumentError{Operand::grad, second,
                          "shares memory with the gradient of {other}, and zero_grads sets both to zero; pass a copy",
                          first};
    }
    open.push_back(&own);
  }
}

bool OverlapCheck::share_elements(const Strided& a, const Strided& b) {
  if (a.tensor.shape && b.tensor.shape) return may_share(a.tensor, a.extent, b.tensor, b.extent);
  if (a.tensor.shape) return touches(a.tensor, a.extent, b.extent);
  return !b.tensor.shape || touches(b.tensor, b.extent, a.extent);
}

void OverlapCheck::check_written() {
  checked_written_.clear();
  std::vector<Extent> all = written_;
  all.insert(all.end(), state_.begin(), state_.end());
  std::sort(all.begin(), all.end(), starts_earlier);
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i].begin < all[i - 1].end) reject(all[i - 1], all[i]);
  }
  has_sorted_state_ = reads_are_written_;
  sorted_ = has_sorted_state_ ? all : written_;
  std::sort(sorted_.begin(), sorted_.end(), starts_earlier);
  checked_written_ = written_;
  checked_state_ = state_;
}

template <class Touches>
void OverlapCheck::check_read(const Extent& read, const Touches& touches) const {
  auto other = std::lower_bound(sorted_.begin(), sorted_.end(), read.end,
                                [](const Extent& a, uintptr_t address) { return a.begin < address; });
  while (other != sorted_.begin() && (--other)->end > read.begin) {
    if (!touches(*other)) continue;
    std::string whose = other->index < 0 ? "the optimizer's state" : "{other}";
    if (other->slot) whose = "the state " + std::string(other->slot) + " of " + whose;
    throw ArgumentError{Operand::grad, read.index,
                        "shares memory with " + whose + ", which the step overwrites; pass a copy", other->index};
  }
}

}  // namespace flatstep
