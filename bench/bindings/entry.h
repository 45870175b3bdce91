// The entry point that every binding shows to Python: what an optimizer's step takes. Included by the by_*.cpp.
#pragma once

#include <cstddef>
#include <vector>

struct View {
  float* data;
  size_t count;
};

struct Seen {
  size_t elements;
  double sum;
};

inline constexpr const char* wrong_array = "expected contiguous float32 arrays of one dimension";

void nothing();
void step(const std::vector<View>& arrays, const std::vector<double>& numbers);
Seen seen();  // by the last step: how many elements, and what the numbers come to
