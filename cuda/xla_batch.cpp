// See xla_batch.h.
#include "xla_batch.h"

#include <stdexcept>

#include "describe.h"

namespace flatstep::device {

namespace {

NumberKind kind_of(xla::ffi::DataType dtype) {
  return dtype == xla::ffi::DataType::F64 ? NumberKind::float64 : NumberKind::float32;
}

// The leaf's dtypes are those of all.
void set_item_bytes(Batch& batch, const XlaStep::Leaf& leaf) {
  batch.param_bytes = int32_t(leaf.written.bytes);
  batch.grad_bytes = int32_t(leaf.grad.bytes);
  for (size_t slot = 0; slot < leaf.state.size(); ++slot) batch.state_bytes[slot] = int32_t(leaf.state[slot].bytes);
}

Leaf on_device(const XlaStep::Leaf& leaf) {
  Leaf own{leaf.count, 0, leaf.written.data, leaf.grad.data, {}};
  for (size_t slot = 0; slot < leaf.state.size(); ++slot) own.state[slot] = leaf.state[slot].data;
  return own;
}

Batch batch_of(const XlaStep& step) {
  Batch batch{};
  batch.entries = step.entries();
  batch.makes_update = step.makes_update();
  batch.scalars = step.fixed();
  batch.counts = static_cast<const int32_t*>(step.counts().data);
  if (step.traced().size() > size_t(most_numbers)) xla_refuse("a number of a step is given twice");
  for (const XlaStep::Number& number : step.traced())
    batch.columns[batch.column_count++] = {{number.values.data, kind_of(number.values.dtype)}, int32_t(number.index)};
  set_item_bytes(batch, step.leaves().front());
  for (const XlaStep::Leaf& leaf : step.leaves()) {
    if (leaf.layout != step.leaves().front().layout) xla_refuse("the leaves of a step on a device differ in dtypes");
    add_leaf(batch, on_device(leaf));
  }
  return batch;
}

std::vector<int64_t> counts_of(const XlaStep& step) {
  std::vector<int64_t> counts;
  for (const XlaStep::Leaf& leaf : step.leaves()) counts.push_back(leaf.count);
  return counts;
}

}  // namespace

void carry_out(const XlaDevice& device, const XlaStep& step, void* stream) {
  if (step.leaves().empty()) return;
  const Batch batch = batch_of(step);
  const int layout = step.leaves().front().layout;
  const CurrentDevice current(device.runtime, device.index);
  const Launcher launcher(device.runtime, device.kernels, step.rule(), device.index);
  const XlaStep::Stream& memory = step.workspace();
  if (memory.count * memory.bytes < workspace_bytes(launcher.kernel(layout), counts_of(step), step.entries()))
    xla_refuse("the workspace of a step is too small");
  step_batch(launcher, device.lay_out, layout, batch, static_cast<char*>(memory.data), stream);
}

int64_t xla_workspace_bytes(Kernels kernels, std::string_view rule, std::string_view written, std::string_view grad,
                            const std::vector<std::string_view>& state, const std::vector<int64_t>& counts,
                            int64_t entries) {
  const int index = find_rule(rule), layout = index < 0 ? -1 : find_kernel(index, written, grad, state);
  if (layout < 0) xla_refuse("there is no kernel for the dtypes of a step");
  return workspace_bytes(kernels[index][layout], counts, entries);
}

}  // namespace flatstep::device
