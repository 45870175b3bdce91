// The Rule concept and the numerics contract. Included by every rule, and by what walks over rules.
#pragma once

#include "../call.h"
#include "../host_device.h"
#include "role.h"

// A Rule is the update formula of one optimizer, on values held in registers:
//
//   name                                    what catalogue and errors call it
//   slots                                   its state, one entry a buffer
//   Hyperparameters, hyperparameters        its own numbers, as a struct of doubles and by name, in the same order;
//                                           previous_X, after all others, is X of the leaf's last update
//   Coefficients<T>                         the numbers of a step as the compute type T holds them; among them are
//                                           `gradient` and `descent`, each with its weight_decay (terms.h)
//   prepare<T>(scalars) -> Coefficients<T>  once for all elements that share the scalars
//   update<V, T>(param, grad, state, c)     once an element; param and state are read and replaced. V is T, or a vector
//                                           of Ts (cpu/vector.h): it has the operators and functions of T, and `select`
//                                           chooses where `?:` would
//   needs_state_as_computed                 only where it is so: the rule makes things again from its state, so that no
//                                           slot may be stored narrower than it is computed
//
// Numerics, held by tests with ==:
// - Each operation rounds once, in the order written: no fused multiply-add, no contraction, no fast-math. Division and
//   square root are IEEE.
// - Coefficients are made in double and rounded once. A power of beta is `power`, never a library's.
// - Modes become coefficients: `update` has no branch. A mode that is off gives exactly the bits of a rule without it.
//   Times one is neutral; plus a zero product is not (-0.0, infinity), so an optional addend is selected on its
//   coefficient.
// - Moments are flushed (`flush`) as soon as they are made; maxima let NaN through (`maximum`).
// - A slot is seen unrounded in the step that makes it, and rounded once, by its format, when stored.

namespace flatstep::inline FLATSTEP_NAMESPACE {

struct Slot {
  const char* name;
  Role role;
};

template <class R>
concept Rule = requires(const Scalars& scalars, double& param, double (&state)[sizeof(R::slots) / sizeof(Slot)]) {
  R::name;
  requires sizeof(R::slots) / sizeof(Slot) <= max_slots;
  requires sizeof(R::hyperparameters) / sizeof(const char*) == sizeof(typename R::Hyperparameters) / sizeof(double);
  requires sizeof(typename R::Hyperparameters) <= sizeof(Scalars::hyperparameters);
  R::update(param, 0.0, state, R::template prepare<double>(scalars));
  R::template prepare<double>(scalars).gradient.weight_decay;
  R::template prepare<double>(scalars).descent.weight_decay;
};

template <class R>
constexpr int slot_count = sizeof(R::slots) / sizeof(Slot);

template <class R>
consteval bool has_slot(Role role) {
  for (const Slot& slot : R::slots) {
    if (slot.role == role) return true;
  }
  return false;
}

template <class R>
constexpr bool needs_state_as_computed = requires { R::needs_state_as_computed; };

// The rule's own numbers, by name.
template <class R>
FLATSTEP_FN typename R::Hyperparameters read_hyperparameters(const Scalars& scalars) {
  typename R::Hyperparameters own;
  __builtin_memcpy(&own, scalars.hyperparameters, sizeof own);
  return own;
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
