// See testing.h.
#include "testing.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace flatstep::testing {

int run_parts(const std::vector<std::pair<const char*, std::function<void()>>>& parts) {
  for (const auto& [name, part] : parts) {
    const auto start = std::chrono::steady_clock::now();
    try {
      part();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: FAILED: %s\n", name, error.what());
      return 1;
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf("%s: passed, %.1f s\n", name, taken.count());
  }
  return 0;
}

void Block::fill(Random& random, bool with_signs) {
  // Every 16 bits are 0x3e00 to 0x41ff: read as float16, bfloat16 or the upper part of a wider number, a moderate one.
  constexpr uint64_t each = 0x0001'0001'0001'0001;
  for (int64_t i = 0; i < bytes_; i += 8) {
    const uint64_t bits = random.bits();
    const uint64_t words = (0x3e00 * each + (bits & 0x3ff * each)) | (with_signs ? bits & 0x8000 * each : 0);
    std::memcpy(data() + i, &words, size_t(std::min<int64_t>(8, bytes_ - i)));
  }
}

Scalars some_numbers(const RuleDescription& rule, Random& random) {
  Scalars s{};
  s.count = random.pick<int64_t>({1, 2, 3, 1000});
  s.is_initial_step = s.count == 1;
  s.learning_rate = random.pick<double>({1e-3, 0.1});
  s.grad_scale = random.pick<double>({1.0, 0.5});
  s.weight_decay = random.pick<double>({0.0, 0.01});
  s.decoupled_weight_decay = double(random.below(2));
  s.maximize = double(random.below(2));
  // Of random moments nu - mu^2 may be negative, and the bits of NaN are not promised.
  const bool is_centered = rule.name.starts_with("rmsprop_centered");
  for (size_t i = 0; i < rule.hyperparameters.size(); ++i) {
    const std::string_view name = rule.hyperparameters[i];
    double& number = s.hyperparameters[i];
    if (name.ends_with("b1") || name == "decay") {
      number = random.pick<double>({0.9, 0.5});
    } else if (name.ends_with("b2")) {
      number = random.pick<double>({0.999, 0.9});
    } else if (name.ends_with("eps")) {
      number = is_centered ? 1e6 : 1e-8;
    } else if (name.ends_with("eps_root")) {
      number = random.pick<double>({0.0, 1e-6});
    } else if (name == "eps_in_sqrt" && is_centered) {
      number = 1;
    } else {  // a factor or a flag
      number = double(random.below(2));
    }
  }
  return s;
}

}  // namespace flatstep::testing
