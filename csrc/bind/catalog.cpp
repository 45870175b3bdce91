// Shows rules, slots, formats, targets and threads to Python, and how fast a step's bytes move when nothing is
// computed.
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "describe.h"
#include "python.h"
#include "read_array.h"
#include "targets.h"
#include "work.h"

namespace flatstep {

namespace {

using Names = std::vector<std::string_view>;

int rule_index(std::string_view name) {
  const int index = find_rule(name);
  if (index < 0) throw nb::key_error(("no rule named " + std::string(name)).c_str());
  return index;
}

const RuleDescription& rule_named(std::string_view name) { return rules()[size_t(rule_index(name))]; }

// The `name` of each item of a range.
Names names_of(const auto& items) {
  Names names;
  for (const auto& item : items) names.push_back(item.name);
  return names;
}

// The dtype of each slot of a rule on the layout of such parameters.
Names slot_dtypes(std::string_view rule, std::string_view param, std::string_view first_moment) {
  const Dtype dtype = dtype_named(param);
  const int layout = find_layout(dtype, dtype, first_moment.empty() ? dtype : dtype_named(first_moment));
  if (layout < 0) throw nb::key_error(("no layout for parameters of dtype " + std::string(param)).c_str());
  Names dtypes;
  for (const SlotDescription& slot : rule_named(rule).slots)
    dtypes.push_back(name_of(layouts()[size_t(layout)].slot(slot.role)));
  return dtypes;
}

// Whether there is a kernel for tensors of these dtypes, one a slot.
bool has_kernel_for(std::string_view rule, std::string_view param, std::string_view grad, const Names& state) {
  if (state.size() != rule_named(rule).slots.size()) return false;
  std::vector<Dtype> dtypes;
  for (const std::string_view name : state) dtypes.push_back(dtype_named(name));
  return find_kernel(rule_index(rule), dtype_named(param), dtype_named(grad), dtypes.data()) >= 0;
}

// [(name, flags, features, the feature that this machine lacks or "")]
auto built() {
  std::vector<std::tuple<std::string_view, std::string_view, std::string_view, std::string_view>> rows;
  for (const BuiltTarget& row : built_targets())
    rows.emplace_back(row.target->name, row.flags, row.features, row.missing_feature());
  return rows;
}

void set_threads(int n) {
  if (n < 1) throw nb::value_error(("num_threads must be at least 1, got " + std::to_string(n)).c_str());
  set_num_threads(n);
}

// param and grad, then one array a slot, of float32 and one length. All but grad are overwritten with rubbish.
void move_streams(nb::list arrays, bool prefetch, bool on_openmp) {
  const size_t slots = arrays.size() - 2;
  if (arrays.size() < 2 || slots > max_slots)
    throw nb::value_error(("expected param, grad and up to " + std::to_string(max_slots) + " slots").c_str());
  ArrayReader reader;
  Segment segment{};
  for (size_t i = 0; i < arrays.size(); ++i) {
    const Tensor tensor = reader.read(arrays[i], Operand::param, int64_t(i));
    if (i == 0) segment.count = element_count(tensor);
    if (tensor.ndim != 1 || tensor.shape[0] != segment.count || tensor.dtype != Dtype::float32 ||
        !is_contiguous(tensor) || (tensor.read_only && i != 1))
      throw nb::value_error("expected dense, writable, one-dimensional arrays of float32 and one length");
    if (i == 0) segment.param = tensor.data;
    if (i == 1) segment.grad = tensor.data;
    if (i >= 2) segment.state[i - 2] = tensor.data;
  }
  const Call call{&segment, 1, nullptr};
  const Job job{-1, chosen_target().limits[slots][prefetch], &call, segment.count};
  const nb::gil_scoped_release unlocked;
  run({&job, 1}, on_openmp ? Team::openmp : Team::own);
}

}  // namespace

void bind_catalog(nb::module_& module) {
  using Tuple = nb::typed<nb::tuple, nb::str, nb::ellipsis>;
  module.def("rules", [] { return names_of(rules()); });
  module.def(
      "hyperparameters", [](std::string_view rule) { return rule_named(rule).hyperparameters; }, nb::arg("rule"));
  module.def(
      "slots", [](std::string_view rule) { return Tuple(nb::tuple(nb::cast(names_of(rule_named(rule).slots)))); },
      nb::arg("rule"));
  module.def("slot_dtypes", &slot_dtypes, nb::arg("rule"), nb::arg("param"), nb::arg("first_moment"));
  module.def("has_kernel", &has_kernel_for, nb::arg("rule"), nb::arg("param"), nb::arg("grad"), nb::arg("state"));
  module.attr("scalars") = nb::tuple(nb::cast(names_of(common_scalars)));
  module.def("targets", [] {
    Names names;
    for (const Target* target : targets()) names.push_back(target->name);
    return names;
  });
  module.def("built_targets", &built);
  module.def("chosen_target", [] { return chosen_target().name; });
  module.def("target_is_forced", &target_is_forced);
  module.def("has_openmp", &has_openmp);
  module.def("get_num_threads", &num_threads);
  module.def(
      "elements_worth_a_thread",
      [](bool on_openmp) { return elements_worth_a_thread(on_openmp ? Team::openmp : Team::own); },
      nb::arg("on_openmp"));
  module.def("set_num_threads", &set_threads, nb::arg("n"));
  module.def("move_streams", &move_streams, nb::arg("arrays"), nb::arg("prefetch"), nb::arg("on_openmp") = false,
             nb::sig("def move_streams(arrays: list[typing.Any], prefetch: bool, on_openmp: bool = False) -> None"));
  module.attr("compiler") = build_info.compiler;
  module.attr("kernel_flags") = build_info.flags;
  module.attr("why_no_cuda") = FLATSTEP_WHY_NO_CUDA;  // empty where it was built
}

}  // namespace flatstep
