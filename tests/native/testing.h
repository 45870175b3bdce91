// What the native tests have in common: checks, seeded choices, memory filled with harmless numbers. For tests only.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "call.h"
#include "describe.h"

namespace flatstep::testing {

// A test ends at the first thing that does not hold.
inline void check(bool holds, const char* law) {
  if (!holds) throw std::runtime_error(law);
}

// Carries out the named parts of a test program; what main() returns. A failure is printed with its part.
int run_parts(const std::vector<std::pair<const char*, std::function<void()>>>& parts);

// Choices that a seed repeats, the same with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t bits() { return engine_(); }
  int64_t below(int64_t n) { return int64_t(bits() % uint64_t(n)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  bool chance(int percent) { return below(100) < percent; }
  template <class T>
  const T& pick(const std::vector<T>& among) {
    return among[size_t(below(int64_t(among.size())))];
  }

 private:
  std::mt19937_64 engine_;
};

// Memory that begins a cache line and ends where it says, so that an address sanitizer sees the byte after it.
class Block {
 public:
  explicit Block(int64_t bytes) : memory_(new (std::align_val_t{cache_line}) char[size_t(bytes)]), bytes_(bytes) {}
  char* data() const { return memory_.get(); }
  int64_t bytes() const { return bytes_; }
  std::string image() const { return {data(), size_t(bytes_)}; }
  void restore(const std::string& image) { std::memcpy(data(), image.data(), image.size()); }

  // Positive numbers between about 1e-10 and 1e10, random in every bit of their mantissa, whichever format reads them;
  // of either sign if `with_signs`.
  void fill(Random& random, bool with_signs);

 private:
  struct Free {
    void operator()(char* memory) const { operator delete[](memory, std::align_val_t{cache_line}); }
  };
  std::unique_ptr<char[], Free> memory_;
  int64_t bytes_;
};

// The numbers of a step with a rule, as a user might choose them.
Scalars some_numbers(const RuleDescription& rule, Random& random);

}  // namespace flatstep::testing
