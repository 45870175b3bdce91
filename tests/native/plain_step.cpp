// See plain_step.h. Compiled with the kernels' flags, which say how arithmetic rounds.
#include "plain_step.h"

#include <utility>
#include <vector>

#include "catalog.h"

namespace flatstep::testing {

namespace {

using Step = void (*)(const Scalars&, void* param, const void* grad, void* const* state);

template <class R, class L>
void step(const Scalars& scalars, void* param, const void* grad, void* const* state) {
  using T = typename L::Compute;
  [&]<size_t... I>(std::index_sequence<I...>) {
    const typename L::Param::Tile param_tile(param, 0);
    const typename L::Grad::Tile grad_tile(const_cast<void*>(grad), 0);
    T p = param_tile.load(0);
    T s[] = {typename L::template Slot<R::slots[I].role>::Tile(state[I], 0).load(0)...};
    R::update(p, grad_tile.load(0), s, R::template prepare<T>(scalars));
    param_tile.store(0, p);
    (typename L::template Slot<R::slots[I].role>::Tile(state[I], 0).store(0, s[I]), ...);
  }(std::make_index_sequence<slot_count<R>>());
}

template <class R, class... L>
std::vector<Step> steps_of(List<L...>) {
  return {&step<R, L>...};
}

template <class... R>
std::vector<std::vector<Step>> all_steps(List<R...>) {
  return {steps_of<R>(Layouts{})...};
}

}  // namespace

void plain_step(int rule, int layout, const Scalars& scalars, void* param, const void* grad, void* const* state) {
  static const std::vector<std::vector<Step>> steps = all_steps(Rules{});
  steps[size_t(rule)][size_t(layout)](scalars, param, grad, state);
}

}  // namespace flatstep::testing
