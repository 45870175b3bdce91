// See running.h.
#include "running.h"

#include <unistd.h>

#include <exception>

namespace flatstep {

Scalars read_scalars(nb::handle row, size_t hyperparameters) {
  constexpr size_t common = 6;
  const nb::tuple numbers = nb::borrow<nb::tuple>(row);
  if (numbers.size() != common + hyperparameters) throw nb::value_error("a row of scalars has another length");
  Scalars s{};
  s.count = nb::cast<int64_t>(numbers[0]);
  s.is_initial_step = s.count == 1;
  double* const fields[] = {&s.learning_rate, &s.grad_scale, &s.weight_decay, &s.decoupled_weight_decay, &s.maximize};
  for (size_t i = 1; i < common; ++i) *fields[i - 1] = nb::cast<double>(numbers[i]);
  for (size_t i = 0; i < hyperparameters; ++i) s.hyperparameters[i] = nb::cast<double>(numbers[common + i]);
  return s;
}

void unlocked(const std::function<void()>& f) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr raised;
  try {
    f();
  } catch (...) {
    raised = std::current_exception();
  }
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    while (true) pause();
  }
  if (raised) std::rethrow_exception(raised);
}

void raise(const Refusal& refusal, const Naming& naming) {
  std::string text =
      (refusal.stream == Stream::param ? naming.param : naming.grad) + naming.leaf(refusal.leaf) + " " + refusal.text;
  constexpr std::string_view other = "{other}";
  if (const size_t at = text.find(other); at != std::string::npos)
    text.replace(at, other.size(), naming.param + naming.leaf(refusal.other));
  if (refusal.wrong_type) throw nb::type_error(text.c_str());
  throw nb::value_error(text.c_str());
}

}  // namespace flatstep
