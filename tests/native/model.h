// An optimizer with memory of its own, made again by the same seed: for tests that compare two ways of stepping it.
#pragma once

#include <optional>

#include "step.h"
#include "testing.h"

namespace flatstep::testing {

class Model {
 public:
  // Tensors of the given lengths with all formats of a layout; every third gradient is strided. Nothing where no
  // optimizer can have the layout. With a tail, steps average the parameters and set gradients to zero.
  static std::unique_ptr<Model> make(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed,
                                     bool has_tail = false);

  // The work of one step. The same every time; steps go on from what the last one made.
  const std::vector<Job>& jobs(const Target& target);

  const std::vector<Scalars>& scalars() const { return scalars_; }  // segments' rows of numbers

  // All bytes that a step might change.
  std::vector<std::string> images() const;

 private:
  Model(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed, bool has_tail);

  std::vector<int64_t> lengths_;
  std::vector<Scalars> scalars_;
  Block params_, grads_;
  std::vector<Block> state_;
  std::vector<Parameter> parameters_;
  Step step_;
};

}  // namespace flatstep::testing
