// See xla_batch.h.
#include "xla_batch.h"

#include <stdexcept>

#include "describe.h"

namespace flatstep::device {

namespace {

NumberKind kind_of(xla::ffi::DataType dtype) {
  return dtype == xla::ffi::DataType::F64 ? NumberKind::float64 : NumberKind::float32;
}

// The dtypes of one parameter are those of all.
void set_item_bytes(Batch& batch, const Parameter& parameter, size_t slots) {
  batch.param_bytes = bytes_of(parameter.param.dtype);
  batch.grad_bytes = bytes_of(parameter.grad.dtype);
  for (size_t slot = 0; slot < slots; ++slot) batch.state_bytes[slot] = bytes_of(parameter.state[slot].dtype);
}

Leaf on_device(const Parameter& parameter, int64_t count) {
  Leaf own{count, 0, parameter.param.data, parameter.grad.data, {}};
  for (size_t slot = 0; slot < max_slots; ++slot) own.state[slot] = parameter.state[slot].data;
  return own;
}

Batch batch_of(const XlaStep& step) {
  Batch batch{};
  const auto& [first, first_size] = step.parameters.front();
  batch.entries = step.entries;
  batch.makes_update = first.makes_update;
  batch.scalars = step.fixed;
  batch.counts = static_cast<const int32_t*>(step.counts.data);
  if (step.traced.size() > size_t(most_numbers)) reject_xla("a number of a step is given twice");
  for (const XlaStep::Number& number : step.traced)
    batch.columns[batch.column_count++] = {{number.values.data, kind_of(number.values.dtype)}, int32_t(number.index)};
  set_item_bytes(batch, first, rules()[size_t(step.rule)].slots.size());
  for (const auto& [parameter, size] : step.parameters) {
    if (size.layout != first_size.layout) reject_xla("the parameters of a step on a device differ in dtypes");
    add_leaf(batch, on_device(parameter, size.count));
  }
  return batch;
}

std::vector<int64_t> counts_of(const XlaStep& step) {
  std::vector<int64_t> counts;
  for (const XlaStep::Sized& parameter : step.parameters) counts.push_back(parameter.size.count);
  return counts;
}

}  // namespace

void carry_out(const XlaDevice& device, const XlaStep& step, void* stream) {
  if (step.parameters.empty()) return;
  const Batch batch = batch_of(step);
  const int layout = step.parameters.front().size.layout;
  const CurrentDevice current(device.runtime, device.index);
  const Launcher launcher(device.runtime, device.kernels, step.rule, device.index);
  const XlaStep::Buffer& memory = step.workspace;
  if (memory.bytes < workspace_bytes(launcher.kernel(layout), counts_of(step), step.entries))
    reject_xla("the workspace of a step is too small");
  step_batch(launcher, device.lay_out, layout, batch, static_cast<char*>(memory.data), stream);
}

int64_t xla_workspace_bytes(Kernels kernels, std::string_view rule, std::string_view written, std::string_view grad,
                            const std::vector<std::string_view>& state, const std::vector<int64_t>& counts,
                            int64_t entries) {
  std::vector<Dtype> dtypes;
  for (const std::string_view name : state) dtypes.push_back(dtype_named(name));
  const int index = find_rule(rule);
  const int layout = index < 0 ? -1 : find_kernel(index, dtype_named(written), dtype_named(grad), dtypes.data());
  if (layout < 0) reject_xla("there is no kernel for the dtypes of a step");
  return workspace_bytes(kernels[index][layout], counts, entries);
}

}  // namespace flatstep::device
