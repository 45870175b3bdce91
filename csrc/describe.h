// The catalogue as data: names, slots and formats of every rule and layout, in the order in which targets count them.
// For whoever must talk about kernels without compiling one: checks and bindings.
#pragma once

#include <string_view>
#include <vector>

#include "rules/role.h"

namespace flatstep {

struct FormatDescription {
  std::string_view name;
  int bytes;
};

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
  FormatDescription param, grad, first_moment, second_moment;

  const FormatDescription& slot(Role role) const;
};

const std::vector<RuleDescription>& rules();
const std::vector<LayoutDescription>& layouts();

// Whether there is a kernel for the two, by their indices.
bool has_kernel(int rule, int layout);

// The index of a rule by its name, of a layout by its formats; -1 where the catalogue has none. An empty format of a
// moment is the parameter's own.
int find_rule(std::string_view name);
int find_layout(std::string_view param, std::string_view grad, std::string_view first_moment,
                std::string_view second_moment = {});

// The layout of a rule's kernel for streams of these formats, a format a slot; -1 where there is no such kernel.
int find_kernel(int rule, std::string_view param, std::string_view grad, const std::vector<std::string_view>& state);

}  // namespace flatstep
