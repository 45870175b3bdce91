// What the steps of all front ends do alike: read numbers, unlock the interpreter, turn refusals into Python errors.
// For csrc/bind only.
#pragma once

#include <functional>
#include <string>

#include "bind.h"
#include "geometry.h"

namespace flatstep {

// A row of Python numbers: count, the common scalars, then the rule's hyperparameters in its order.
Scalars read_scalars(nb::handle row, size_t hyperparameters);

// Runs f with the interpreter unlocked. A daemon thread that comes back to an interpreter which is shutting down is
// ended by CPython (before 3.14) in a way that would abort the process from here, so it waits for the end instead.
void unlocked(const std::function<void()>& f);

// What a refusal calls the leaves: a word for each kind of stream, and the name of each.
struct Naming {
  const char *param, *grad;
  std::function<std::string(int64_t)> leaf;
};

// TypeError or ValueError.
[[noreturn]] void raise(const Refusal& refusal, const Naming& naming);

}  // namespace flatstep
