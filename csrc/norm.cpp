// See norm.h.
#include "norm.h"

#include <cmath>

namespace flatstep {

namespace {

// The sum of n values as a tree: neighbours are added until one is left, and an odd last one waits for the next round.
// The order depends on n alone.
double sum_in_pairs(std::vector<double>& values) {
  for (size_t n = values.size(); n > 1; n = (n + 1) / 2) {
    for (size_t i = 0; i < n / 2; ++i) values[i] = values[2 * i] + values[2 * i + 1];
    if (n % 2) values[n / 2] = values[n - 1];
  }
  return values.empty() ? 0 : values[0];
}

double larger(double a, double b) { return a != a || a > b ? a : b; }  // NaN if either is

// The axes longer than 1, in the order of the shape.
std::vector<int> c_order(const Tensor& tensor) {
  std::vector<int> axes;
  for (int axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.shape[axis] > 1) axes.push_back(axis);
  }
  return axes;
}

int64_t blocks_of(int64_t count) { return (count + norm_block - 1) / norm_block; }

}  // namespace

void check_norm(const Tensor& grad, int64_t index) {
  const auto reject = [&](std::string why, bool is_type_error = false) {
    throw ArgumentError{Operand::grad, index, std::move(why), -1, is_type_error};
  };
  if (grad.dtype == Dtype::other)
    reject("has dtype " + dtype_of(grad) + ", expected float16, bfloat16, float32 or float64; convert it", true);
  Extent extent{};
  if (element_count(grad) == 0) return;
  if (element_count(grad) < 0 || !find_extent(grad, extent))
    reject("reaches beyond all memory (shape " + shape_of(grad) + "); pass an array whose elements exist");
  if (!is_aligned(grad)) reject("is not aligned to its item size; pass a copy");
}

void GradientNorm::begin() {
  pieces_.clear();
  walks_.clear();
  scalars_.clear();
  block_count_ = 0;
  elements_ = 0;
}

void GradientNorm::add(const Tensor& grad, double scale) {
  const int64_t count = element_count(grad);
  if (count == 0) return;
  if (scalars_.empty() || scalars_.back().grad_scale != scale) scalars_.emplace_back().grad_scale = scale;
  Segment segment{};
  segment.count = count;
  segment.scalars = int64_t(scalars_.size()) - 1;
  segment.grad = grad.data;
  if (!is_contiguous(grad)) segment.walk = &walks_.emplace_back(grad, c_order(grad)).walk;
  pieces_.push_back({segment, grad.dtype, block_count_});
  block_count_ += size_t(blocks_of(count));
  elements_ += count;
}

const std::vector<Job>& GradientNorm::jobs(const Target& target, NormKind kind) {
  calls_.clear();
  jobs_.clear();
  for (std::vector<Segment>& segments : segments_) segments.clear();
  blocks_.resize(block_count_);
  for (const NormPiece& piece : pieces_) {
    std::vector<Segment>& segments = segments_[size_t(piece.dtype)];
    Segment& segment = segments.emplace_back(piece.segment);
    segment.param = &blocks_[piece.first_block];
    if (segments.size() == 1) continue;
    const Segment& before = segments[segments.size() - 2];
    segment.first = before.first + blocks_of(before.count) * norm_block;
  }
  calls_.reserve(size_t(Dtype::other));  // jobs point into it
  for (size_t dtype = 0; dtype < size_t(Dtype::other); ++dtype) {
    const std::vector<Segment>& segments = segments_[dtype];
    if (segments.empty()) continue;
    calls_.push_back({segments.data(), int64_t(segments.size()), scalars_.data()});
    const Segment& last = segments.back();
    jobs_.push_back(
        {-1, target.norms[size_t(kind)][dtype], &calls_.back(), last.first + blocks_of(last.count) * norm_block});
  }
  return jobs_;
}

void GradientNorm::find_blocks(const Target& target, NormKind kind, Team team, const Run& run) {
  const std::vector<Job>& all = jobs(target, kind);
  if (elements_ < 2 * elements_worth_a_thread(team)) {  // jobs count whole blocks, which small tensors do not fill
    for (const Job& job : all) job.kernel(*job.call, 0, job.elements);
  } else {
    run(all);
  }
}

GradientNorm::Result GradientNorm::find(const Target& target, NormKind kind, Team team, int threads) {
  const DefaultFloatingPoint mode;  // of the sums here
  find_blocks(target, kind, team, [&](std::span<const Job> jobs) { run(jobs, team, threads); });
  return combine(kind);
}

std::vector<NormBlock> GradientNorm::sums(const Target& target, const Run& run) {
  const DefaultFloatingPoint mode;
  find_blocks(target, NormKind::two, Team::openmp, run);
  std::vector<NormBlock> found;
  for (const NormPiece& piece : pieces_)
    found.push_back(sum_in_pairs({&blocks_[piece.first_block], size_t(blocks_of(piece.segment.count))}));
  return found;
}

NormBlock sum_in_pairs(std::span<const NormBlock> sums) {
  std::vector<double> values;
  double check = 0;
  for (const NormBlock& sum : sums) {
    values.push_back(sum.value);
    check += sum.check;
  }
  return {sum_in_pairs(values), check};
}

double GradientLimits::factor(double norm) const {
  if (!max_norm) return 1;
  const DefaultFloatingPoint mode;
  return clip_factor(formula, *max_norm, norm);
}

GradientNorm::Result GradientNorm::combine(NormKind kind) const {
  std::vector<double> sums, of_tensor;
  double largest = 0, check = 0;
  for (const NormPiece& piece : pieces_) {
    of_tensor.clear();
    for (int64_t block = 0; block < blocks_of(piece.segment.count); ++block) {
      const NormBlock& found = blocks_[piece.first_block + size_t(block)];
      of_tensor.push_back(found.value);
      largest = larger(largest, found.value);
      check += found.check;
    }
    sums.push_back(sum_in_pairs(of_tensor));
  }
  if (kind == NormKind::largest) return {largest, check == 0, largest};
  const double total = sum_in_pairs(sums);
  return {std::sqrt(total), check == 0, total};
}

}  // namespace flatstep
