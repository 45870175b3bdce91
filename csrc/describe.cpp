// Reads the catalogue's types into data. See describe.h.
#include "describe.h"

#include "catalog.h"

namespace flatstep {

namespace {

template <class F>
Dtype dtype_of() {
  static_assert(bytes_of(dtype_named(F::name)) == sizeof(typename F::Storage));
  return dtype_named(F::name);
}

template <Rule R, class... L>
RuleDescription describe_rule(List<L...>) {
  RuleDescription rule{R::name, {}, {}, {fits<R, L>...}};
  for (const Slot& slot : R::slots) rule.slots.push_back({slot.name, slot.role});
  for (const char* name : R::hyperparameters) rule.hyperparameters.push_back(name);
  return rule;
}

template <class L>
LayoutDescription describe_layout() {
  return {dtype_of<typename L::Param>(), dtype_of<typename L::Grad>(),
          dtype_of<typename L::template Slot<Role::first_moment>>(),
          dtype_of<typename L::template Slot<Role::second_moment>>()};
}

template <class... R>
std::vector<RuleDescription> describe_rules(List<R...>) {
  return {describe_rule<R>(Layouts{})...};
}

template <class... L>
std::vector<LayoutDescription> describe_layouts(List<L...>) {
  return {describe_layout<L>()...};
}

}  // namespace

Dtype LayoutDescription::slot(Role role) const {
  switch (role) {
    case Role::first_moment: return first_moment;
    case Role::second_moment: return second_moment;
    case Role::like_param: break;
  }
  return param;
}

const std::vector<RuleDescription>& rules() {
  static const std::vector<RuleDescription> all = describe_rules(Rules{});
  return all;
}

const std::vector<LayoutDescription>& layouts() {
  static const std::vector<LayoutDescription> all = describe_layouts(Layouts{});
  return all;
}

std::vector<std::string> slot_names(int rule) {
  std::vector<std::string> names;
  for (const SlotDescription& slot : rules()[size_t(rule)].slots) names.emplace_back(slot.name);
  return names;
}

int find_rule(std::string_view name) {
  for (size_t i = 0; i < rules().size(); ++i) {
    if (rules()[i].name == name) return int(i);
  }
  return -1;
}

bool has_kernel(int rule, int layout) { return rules()[size_t(rule)].has_kernel[size_t(layout)]; }

int find_layout(Dtype param, Dtype grad, Dtype first_moment) {
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    if (layout.param == param && layout.grad == grad && layout.first_moment == first_moment &&
        layout.second_moment == param)
      return int(i);
  }
  return -1;
}

int find_kernel(int rule, Dtype param, Dtype grad, const Dtype* state) {
  const std::vector<SlotDescription>& slots = rules()[size_t(rule)].slots;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    bool fits = has_kernel(rule, int(i)) && layout.param == param && layout.grad == grad;
    for (size_t slot = 0; slot < slots.size(); ++slot) fits = fits && layout.slot(slots[slot].role) == state[slot];
    if (fits) return int(i);
  }
  return -1;
}

}  // namespace flatstep
