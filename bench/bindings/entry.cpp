// In a file of its own, so that no binding can look inside.
#include "entry.h"

namespace {

Seen last;

}  // namespace

void nothing() {}

void step(const std::vector<View>& arrays, const std::vector<double>& numbers) {
  last = {};
  for (const View& array : arrays) last.elements += array.count;
  for (const double number : numbers) last.sum += number;
}

Seen seen() { return last; }
