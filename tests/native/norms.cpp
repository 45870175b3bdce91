// Norms of gradients: the same bits on every target, for any number of threads and strides, and no byte read beyond a
// gradient.
#include "norm.h"

#include <cmath>

#include "testing.h"

namespace flatstep::testing {

namespace {

const std::vector<int64_t> lengths = {1, 15, 0, 16, 17, 1023, 1024, 1025, 5000, 200'000};

// Gradients of one dtype in blocks of their own, every third one strided.
struct Gradients {
  Gradients(Dtype dtype, uint64_t seed) {
    Random random(seed);
    for (const int64_t& length : lengths) {
      const int64_t& stride = blocks.size() % 3 == 2 ? two : one;
      const int64_t elements = length == 0 ? 0 : (length - 1) * stride + 1;
      blocks.emplace_back(elements * bytes_of(dtype)).fill(random, true);
      tensors.push_back({blocks.back().data(), &length, &stride, 1, dtype, true, {}, nullptr});
    }
  }

  static constexpr int64_t one = 1, two = 2;
  std::vector<Block> blocks;
  std::vector<Tensor> tensors;
};

GradientNorm::Result norm_of(const std::vector<Tensor>& tensors, const Target& target, NormKind kind) {
  GradientNorm norm;
  norm.begin();
  for (const Tensor& tensor : tensors) norm.add(tensor, 0.75);
  return norm.find(target, kind, Team::own);
}

void every_target_has_the_same_bits() {
  for (int dtype = 0; dtype < int(Dtype::other); ++dtype) {
    for (const NormKind kind : {NormKind::two, NormKind::largest}) {
      const Gradients gradients{Dtype(dtype), uint64_t(dtype) + 1};
      set_num_threads(1);
      const GradientNorm::Result expected = norm_of(gradients.tensors, *targets().back(), kind);
      check(expected.is_finite && std::isfinite(expected.value) && expected.value > 0, "harmless numbers have a norm");
      for (const Target* target : targets()) {
        for (const int threads : {1, 2, 7}) {
          set_num_threads(threads);
          const GradientNorm::Result found = norm_of(gradients.tensors, *target, kind);
          check(found.value == expected.value && found.is_finite, "targets and threads change no bit of a norm");
        }
      }
    }
  }
}

void nothing_has_no_norm() {
  const GradientNorm::Result none = norm_of({}, chosen_target(), NormKind::two);
  check(none.value == 0 && none.is_finite, "the norm of nothing is zero");
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"every target and any threads give the same bits", every_target_has_the_same_bits},
                    {"nothing has no norm", nothing_has_no_norm}});
}
