// An optimizer with memory of its own, made again by the same seed: for tests that compare two ways of stepping it.
#pragma once

#include <optional>

#include "check.h"
#include "testing.h"

namespace flatstep::testing {

class Model {
 public:
  // Tensors of the given lengths with all formats of a layout; every third gradient is strided. Nothing where no
  // optimizer can have the layout.
  static std::unique_ptr<Model> make(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed);

  // The work of one step. The same every time; steps go on from what the last one made.
  const std::vector<Job>& jobs(const Target& target);

  const std::vector<Scalars>& scalars() const { return scalars_; }  // segments' rows of numbers

  // All bytes that a step might change.
  std::vector<std::string> images() const;

 private:
  Model(int rule, int layout, std::vector<int64_t> lengths, uint64_t seed);

  std::vector<int64_t> lengths_, rows_;
  std::vector<Scalars> scalars_;
  int64_t item_bytes_, twice_;
  Block params_, grads_;
  std::vector<Block> state_;
  std::vector<std::optional<Array>> grad_arrays_;
  std::optional<Plan> plan_;
};

}  // namespace flatstep::testing
