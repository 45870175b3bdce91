// Reads the catalogue's types into data. See describe.h.
#include "describe.h"

#include "catalog.h"

namespace flatstep {

namespace {

template <class F>
FormatDescription describe_format() {
  return {F::name, int(sizeof(typename F::Storage))};
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
  return {describe_format<typename L::Param>(), describe_format<typename L::Grad>(),
          describe_format<typename L::template Slot<Role::first_moment>>(),
          describe_format<typename L::template Slot<Role::second_moment>>()};
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

const FormatDescription& LayoutDescription::slot(Role role) const {
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

int find_rule(std::string_view name) {
  for (size_t i = 0; i < rules().size(); ++i) {
    if (rules()[i].name == name) return int(i);
  }
  return -1;
}

bool has_kernel(int rule, int layout) { return rules()[size_t(rule)].has_kernel[size_t(layout)]; }

int find_layout(std::string_view param, std::string_view grad, std::string_view first_moment,
                std::string_view second_moment) {
  if (first_moment.empty()) first_moment = param;
  if (second_moment.empty()) second_moment = param;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    if (layout.param.name == param && layout.grad.name == grad && layout.first_moment.name == first_moment &&
        layout.second_moment.name == second_moment)
      return int(i);
  }
  return -1;
}

int find_kernel(int rule, std::string_view param, std::string_view grad, const std::vector<std::string_view>& state) {
  const std::vector<SlotDescription>& slots = rules()[size_t(rule)].slots;
  if (state.size() != slots.size()) return -1;
  std::string_view first, second;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].role == Role::first_moment) first = state[i];
    if (slots[i].role == Role::second_moment) second = state[i];
  }
  const int layout = find_layout(param, grad, first, second);
  if (layout < 0 || !has_kernel(rule, layout)) return -1;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (layouts()[size_t(layout)].slot(slots[i].role).name != state[i]) return -1;
  }
  return layout;
}

}  // namespace flatstep
