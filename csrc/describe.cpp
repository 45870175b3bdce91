// Reads the catalogue's types into data. See describe.h.
#include "describe.h"

#include <algorithm>

#include "catalog.h"

namespace flatstep {

namespace {

// The index of the first item of which that is true; -1 where there is none.
template <class Item, class IsWanted>
int index_of(const std::vector<Item>& items, const IsWanted& is_wanted) {
  const auto found = std::ranges::find_if(items, is_wanted);
  return found == items.end() ? -1 : int(found - items.begin());
}

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

}  // namespace

const std::vector<RuleDescription>& rules() {
  static const std::vector<RuleDescription> all = []<class... R>(List<R...>) {
    return std::vector{describe_rule<R>(Layouts{})...};
  }(Rules{});
  return all;
}

const std::vector<LayoutDescription>& layouts() {
  static const std::vector<LayoutDescription> all = []<class... L>(List<L...>) {
    return std::vector{describe_layout<L>()...};
  }(Layouts{});
  return all;
}

std::vector<std::string> slot_names(int rule) {
  std::vector<std::string> names;
  for (const SlotDescription& slot : rules()[size_t(rule)].slots) names.emplace_back(slot.name);
  return names;
}

int find_rule(std::string_view name) {
  return index_of(rules(), [=](const RuleDescription& rule) { return rule.name == name; });
}

bool has_kernel(int rule, int layout) { return rules()[size_t(rule)].has_kernel[size_t(layout)]; }

int find_layout(Dtype param, Dtype grad, Dtype first_moment) {
  return index_of(layouts(), [=](const LayoutDescription& layout) {
    return layout.param == param && layout.grad == grad && layout.first_moment == first_moment &&
           layout.second_moment == param;
  });
}

int find_kernel(int rule, Dtype param, Dtype grad, const Dtype* state) {
  const std::vector<SlotDescription>& slots = rules()[size_t(rule)].slots;
  return index_of(layouts(), [&](const LayoutDescription& layout) {
    bool fits = has_kernel(rule, int(&layout - layouts().data())) && layout.param == param && layout.grad == grad;
    for (size_t slot = 0; slot < slots.size(); ++slot) fits = fits && layout.slot(slots[slot].role) == state[slot];
    return fits;
  });
}

}  // namespace flatstep
