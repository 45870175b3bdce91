// The norm of gradients: tensors -> the jobs that find it block by block, and their sum in a fixed tree. Used by steps
// and by global_norm. Knows no Python.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "norm_blocks.h"
#include "targets.h"
#include "tensor.h"
#include "work.h"

namespace flatstep {

// Throws ArgumentError where no kernel can read the gradient.
void check_norm(const Tensor& grad, int64_t index);

// A gradient, and how many blocks those before it have.
struct NormPiece {
  Segment segment;
  Dtype dtype;
  size_t first_block;
};

// The norm of some gradients together: the same bits for any number of threads, target, strides and alignment.
class GradientNorm {
 public:
  void begin();

  // A gradient that was checked, here or by a step. Its numbers are multiplied by `scale` as a step multiplies them.
  // Its memory must last until `find` returns.
  void add(const Tensor& grad, double scale);

  struct Result {
    double value;
    bool is_finite;  // all numbers, scaled: not the norm, which may overflow
    double total;    // of the squares, before the root; the largest magnitude of that kind
  };
  Result find(const Target& target, NormKind kind, Team team, int threads = 0);

  // For each gradient that was added and has elements its sum of squares, and a check of them; `run` carries out the
  // jobs. The sum in pairs of these is what `find` takes the root of.
  using Run = std::function<void(std::span<const Job>)>;
  std::vector<NormBlock> sums(const Target& target, const Run& run);

  // What was added, for a device to find its norm; until `begin`. A segment's `scalars` is its index into `scalars`.
  const std::vector<NormPiece>& pieces() const { return pieces_; }
  const std::vector<Scalars>& scalars() const { return scalars_; }

 private:
  const std::vector<Job>& jobs(const Target& target, NormKind kind);
  void find_blocks(const Target& target, NormKind kind, Team team, const Run& run);
  Result combine(NormKind kind) const;

  std::vector<NormPiece> pieces_;
  std::deque<OwnedWalk> walks_;
  std::vector<Scalars> scalars_;
  std::vector<NormBlock> blocks_;
  std::vector<Segment> segments_[size_t(Dtype::other)];
  std::vector<Call> calls_;
  std::vector<Job> jobs_;
  size_t block_count_ = 0;
  int64_t elements_ = 0;
};

// The sum as a tree whose order depends on the number of values alone, and of checks.
NormBlock sum_in_pairs(std::span<const NormBlock> sums);

// What a step asks of its gradients before it changes anything.
struct GradientLimits {
  using Formula = ClipFormula;

  std::optional<double> max_norm;  // of all gradients together: those of a larger norm are scaled down to it
  bool skips_nonfinite;            // a step with a number that is not finite changes nothing
  Formula formula;                 // of the factor, as optax.clip_by_global_norm or torch's clip_grad_norm_ have it

  bool is_skipped(const GradientNorm::Result& norm) const { return skips_nonfinite && !norm.is_finite; }

  // By which gradients of this norm are multiplied.
  double factor(double norm) const;
};

}  // namespace flatstep
