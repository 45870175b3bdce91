// See xla_step.h.
#include "xla_step.h"

#include <algorithm>
#include <stdexcept>

#include "describe.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;

struct CommonNumber {
  std::string_view name;
  double Scalars::* member;
};

constexpr CommonNumber common_numbers[] = {
    {"learning_rate", &Scalars::learning_rate}, {"grad_scale", &Scalars::grad_scale},
    {"weight_decay", &Scalars::weight_decay},   {"decoupled_weight_decay", &Scalars::decoupled_weight_decay},
    {"maximize", &Scalars::maximize},           {"is_initial_step", &Scalars::is_initial_step}};
constexpr size_t common_count = sizeof common_numbers / sizeof *common_numbers;

std::string_view format_name(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::F16: return "float16";
    case ffi::DataType::BF16: return "bfloat16";
    case ffi::DataType::F32: return "float32";
    case ffi::DataType::F64: return "float64";
    default: return "another";
  }
}

XlaStep::Stream stream_of(const ffi::AnyBuffer& buffer) {
  const auto bytes = int64_t(buffer.size_bytes()), count = int64_t(buffer.element_count());
  return {buffer.untyped_data(), buffer.element_type(), count == 0 ? 0 : bytes / count, count, buffer.dimensions()};
}

}  // namespace

std::vector<std::string_view> xla_scalars() {
  std::vector<std::string_view> names;
  for (const CommonNumber& number : common_numbers) names.push_back(number.name);
  return names;
}

double& xla_number(Scalars& scalars, size_t index) {
  return index < common_count ? scalars.*common_numbers[index].member : scalars.hyperparameters[index - common_count];
}

bool xla_has_kernel(std::string_view rule, std::string_view written, std::string_view grad,
                    const std::vector<std::string_view>& state) {
  const int index = find_rule(rule);
  return index >= 0 && find_kernel(index, written, grad, state) >= 0;
}

void xla_refuse(const std::string& text) { throw std::invalid_argument("flatstep: " + text); }

XlaStep::XlaStep(const XlaAttributes& attributes, ffi::RemainingArgs args, ffi::RemainingRets rets, const Copy& copy,
                 bool has_workspace)
    : attributes_(attributes), args_(args), rets_(rets), rule_(find_rule(attributes.rule)) {
  if (rule_ < 0) xla_refuse("there is no rule named " + std::string(attributes.rule));
  const RuleDescription& rule = rules()[size_t(rule_)];
  slots_ = rule.slots.size();
  const size_t written = slots_ + 1;  // streams: the state, and parameters or updates
  const size_t results = rets.size() - (has_workspace && rets.size() > 0), leaves = results / written;
  const size_t numbers = 1 + attributes.traced.size(), streams = attributes.makes_update ? written : written + 1;
  if (results != leaves * written || args.size() != numbers + leaves * streams ||
      attributes.numbers.size() != common_count + rule.hyperparameters.size())
    xla_refuse("a step has too many or too few operands");
  if (has_workspace) workspace_ = result(results);
  read_numbers();
  for (size_t leaf = 0; leaf < leaves; ++leaf) read_leaf(leaf, leaves, copy);
}

XlaStep::Stream XlaStep::operand(size_t index) const {
  const auto buffer = args_.get<ffi::AnyBuffer>(index);
  if (!buffer) xla_refuse(buffer.error().message());
  return stream_of(*buffer);
}

XlaStep::Stream XlaStep::result(size_t index) const {
  auto buffer = rets_.get<ffi::AnyBuffer>(index);
  if (!buffer) xla_refuse(buffer.error().message());
  return stream_of(**buffer);
}

// XLA puts a result where its operand is; should it ever not do so, the operand is copied there first.
XlaStep::Stream XlaStep::result(size_t index, size_t operand_index, const Copy& copy) const {
  const Stream from = operand(operand_index), to = result(index);
  if (to.count != from.count || to.dtype != from.dtype) xla_refuse("a result is not like its operand");
  if (to.data != from.data) copy(to.data, from.data, size_t(from.count * from.bytes));
  return {to.data, from.dtype, from.bytes, from.count, from.shape};
}

void XlaStep::read_numbers() {
  for (size_t i = 0; i < attributes_.numbers.size(); ++i) xla_number(fixed_, i) = attributes_.numbers[i];
  counts_ = operand(0);
  if (counts_.dtype != ffi::DataType::S32) xla_refuse("the count of a step is not int32");
  for (size_t k = 0; k < attributes_.traced.size(); ++k) {
    const Number number{size_t(attributes_.traced[k]), operand(1 + k)};
    if (number.values.count != counts_.count || number.index >= attributes_.numbers.size())
      xla_refuse("a number has another shape");
    if (number.values.dtype != ffi::DataType::F32 && number.values.dtype != ffi::DataType::F64)
      xla_refuse("a number of a step is neither float32 nor float64");
    traced_.push_back(number);
  }
}

// Neighbours often have the same dtypes.
int XlaStep::find_layout(const Leaf& leaf) {
  std::vector<ffi::DataType> dtypes = {leaf.written.dtype, leaf.grad.dtype};
  for (const Stream& slot : leaf.state) dtypes.push_back(slot.dtype);
  if (dtypes == dtypes_) return layout_;
  std::vector<std::string_view> formats;
  for (const Stream& slot : leaf.state) formats.push_back(format_name(slot.dtype));
  layout_ = find_kernel(rule_, format_name(leaf.written.dtype), format_name(leaf.grad.dtype), formats);
  if (layout_ < 0) xla_refuse("there is no kernel for the dtypes of a step");
  dtypes_ = std::move(dtypes);
  return layout_;
}

void XlaStep::read_leaf(size_t index, size_t leaves, const Copy& copy) {
  const bool update = attributes_.makes_update;
  const size_t begin = 1 + attributes_.traced.size(), grads = begin + leaves * (update ? slots_ : slots_ + 1);
  const ffi::AnyBuffer::Dimensions batch = counts_.shape;
  Leaf leaf{-1, 0, result(index, update ? grads + index : begin + index, copy), operand(grads + index), {}};
  for (size_t slot = 0; slot < slots_; ++slot) {
    const size_t from = begin + (update ? slot : slot + 1) * leaves + index;
    leaf.state.push_back(result((slot + 1) * leaves + index, from, copy));
    if (leaf.state.back().count != leaf.written.count) xla_refuse("state has another shape than its parameter");
  }
  if (leaf.grad.count != leaf.written.count) xla_refuse("a gradient has another shape than its parameter");
  if (leaf.written.shape.size() < batch.size() || !std::equal(batch.begin(), batch.end(), leaf.written.shape.begin()))
    xla_refuse("a leaf is of another batch than the numbers");
  if (leaf.written.count == 0) return;
  leaf.layout = find_layout(leaf);
  leaf.count = leaf.written.count / counts_.count;
  leaves_.push_back(std::move(leaf));
}

}  // namespace flatstep
