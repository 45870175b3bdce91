// The catalogue as data: names, slots and formats of every rule and layout, in the order in which targets count them.
// For code that knows kernels without compiling one: checks and bindings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dtype.h"
#include "rules/role.h"

namespace flatstep {

struct SlotDescription {
  std::string_view name;
  Role role;
};

struct RuleDescription {
  std::string_view name;
  std::vector<SlotDescription> slots;
  std::vector<std::string_view> hyperparameters;
  std::vector<bool> has_kernel;  // by layout
};

struct LayoutDescription {
  Dtype param, grad, first_moment, second_moment;

  Dtype slot(Role role) const {
    return role == Role::first_moment ? first_moment : role == Role::second_moment ? second_moment : param;
  }
};

const std::vector<RuleDescription>& rules();
const std::vector<LayoutDescription>& layouts();

std::vector<std::string> slot_names(int rule);

// Whether there is a kernel for the two, by their indices.
bool has_kernel(int rule, int layout);

// By a rule's name, a layout's dtypes or a slot's; -1 where the catalogue has none.
int find_rule(std::string_view name);
int find_layout(Dtype param, Dtype grad, Dtype first_moment);  // its second moment is stored as the parameter is

// The layout of a rule's kernel for tensors of these dtypes, one a slot; -1 where there is no such kernel.
int find_kernel(int rule, Dtype param, Dtype grad, const Dtype* state);

}  // namespace flatstep
