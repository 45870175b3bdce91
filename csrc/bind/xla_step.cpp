// See xla_step.h.
#include "xla_step.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace flatstep {

namespace {

namespace ffi = xla::ffi;

struct Number {
  std::string_view name;
  double Scalars::* member;
};

constexpr Number common_numbers[] = {
    {"learning_rate", &Scalars::learning_rate}, {"grad_scale", &Scalars::grad_scale},
    {"weight_decay", &Scalars::weight_decay},   {"decoupled_weight_decay", &Scalars::decoupled_weight_decay},
    {"maximize", &Scalars::maximize},           {"is_initial_step", &Scalars::is_initial_step}};
constexpr size_t common_count = sizeof common_numbers / sizeof *common_numbers;

double& number(Scalars& scalars, size_t index) {
  return index < common_count ? scalars.*common_numbers[index].member : scalars.hyperparameters[index - common_count];
}

std::string_view format_name(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::DataType::F16: return "float16";
    case ffi::DataType::BF16: return "bfloat16";
    case ffi::DataType::F32: return "float32";
    case ffi::DataType::F64: return "float64";
    default: return "another";
  }
}

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument("flatstep: " + text); }

template <class T>
double read_number(const void* data, int64_t index) {
  return double(static_cast<const T*>(data)[index]);
}

double read_number(const void* data, ffi::DataType dtype, int64_t index) {
  switch (dtype) {
    case ffi::DataType::F32: return read_number<float>(data, index);
    case ffi::DataType::F64: return read_number<double>(data, index);
    default: refuse("a number of a step is neither float32 nor float64");
  }
}

int64_t read_count(const void* data, ffi::DataType dtype, int64_t index) {
  if (dtype != ffi::DataType::S32) refuse("the count of a step is not int32");
  return static_cast<const int32_t*>(data)[index];
}

}  // namespace

std::vector<std::string_view> xla_scalars() {
  std::vector<std::string_view> names;
  for (const Number& number : common_numbers) names.push_back(number.name);
  return names;
}

XlaStep::XlaStep(const XlaAttributes& attributes, ffi::RemainingArgs args, ffi::RemainingRets rets)
    : attributes_(attributes), args_(args), rets_(rets), rule_(find_rule(attributes.rule)) {
  if (rule_ < 0) refuse("there is no rule named " + std::string(attributes.rule));
  const RuleDescription& rule = rules()[size_t(rule_)];
  slots_ = rule.slots.size();
  const size_t written = slots_ + 1;  // streams: the state, and parameters or updates
  leaves_ = rets.size() / written;
  const size_t numbers = 1 + attributes.traced.size(), streams = attributes.makes_update ? written : written + 1;
  if (rets.size() != leaves_ * written || args.size() != numbers + leaves_ * streams ||
      attributes.numbers.size() != common_count + rule.hyperparameters.size())
    refuse("a step has too many or too few operands");
}

XlaStep::Stream XlaStep::operand(size_t index) const {
  const auto buffer = args_.get<ffi::AnyBuffer>(index);
  if (!buffer) refuse(buffer.error().message());
  const auto bytes = int64_t(buffer->size_bytes());
  const auto count = int64_t(buffer->element_count());
  return {buffer->untyped_data(), buffer->element_type(), count == 0 ? 0 : bytes / count, count, buffer->dimensions()};
}

// XLA puts a result where its operand is; should it ever not do so, the operand is copied there first.
XlaStep::Stream XlaStep::result(size_t index, size_t operand_index) const {
  auto buffer = rets_.get<ffi::AnyBuffer>(index);
  if (!buffer) refuse(buffer.error().message());
  Stream stream = operand(operand_index);
  void* const data = (*buffer)->untyped_data();
  if (int64_t((*buffer)->element_count()) != stream.count || (*buffer)->element_type() != stream.dtype)
    refuse("a result is not like its operand");
  if (data != stream.data) std::memcpy(data, stream.data, size_t(stream.count * stream.bytes));
  stream.data = data;
  return stream;
}

void XlaStep::read_numbers() {
  const Stream counts = operand(0);
  Scalars fixed{};
  for (size_t i = 0; i < attributes_.numbers.size(); ++i) number(fixed, i) = attributes_.numbers[i];
  batch_ = counts.shape;
  scalars_.assign(size_t(counts.count), fixed);
  for (int64_t i = 0; i < counts.count; ++i) scalars_[size_t(i)].count = read_count(counts.data, counts.dtype, i);
  for (size_t k = 0; k < attributes_.traced.size(); ++k) {
    const Stream values = operand(1 + k);
    const auto index = size_t(attributes_.traced[k]);
    if (values.count != counts.count || index >= attributes_.numbers.size()) refuse("a number has another shape");
    for (int64_t i = 0; i < values.count; ++i)
      number(scalars_[size_t(i)], index) = read_number(values.data, values.dtype, i);
  }
}

// Neighbours often have the same dtypes.
int XlaStep::find_layout(const Stream& written, const Stream& grad, const std::vector<Stream>& state) {
  std::vector<ffi::DataType> dtypes = {written.dtype, grad.dtype};
  for (const Stream& slot : state) dtypes.push_back(slot.dtype);
  if (dtypes == dtypes_) return layout_;
  std::vector<std::string_view> formats;
  for (const Stream& slot : state) formats.push_back(format_name(slot.dtype));
  layout_ = find_kernel(rule_, format_name(written.dtype), format_name(grad.dtype), formats);
  if (layout_ < 0) refuse("there is no kernel for the dtypes of a step");
  dtypes_ = std::move(dtypes);
  return layout_;
}

void XlaStep::add_leaf(size_t leaf) {
  const bool update = attributes_.makes_update;
  const size_t begin = 1 + attributes_.traced.size(), grads = begin + leaves_ * (update ? slots_ : slots_ + 1);
  const Stream grad = operand(grads + leaf);
  const Stream written = result(leaf, update ? grads + leaf : begin + leaf);
  std::vector<Stream> state;
  for (size_t slot = 0; slot < slots_; ++slot) {
    const size_t result_index = (slot + 1) * leaves_ + leaf;
    state.push_back(result(result_index, begin + (update ? slot : slot + 1) * leaves_ + leaf));
    if (state.back().count != written.count) refuse("state has another shape than its parameter");
  }
  if (grad.count != written.count) refuse("a gradient has another shape than its parameter");
  if (written.shape.size() < batch_.size() || !std::equal(batch_.begin(), batch_.end(), written.shape.begin()))
    refuse("a leaf is of another batch than the numbers");
  if (written.count == 0) return;
  const int layout = find_layout(written, grad, state);
  const auto entries = int64_t(scalars_.size()), count = written.count / entries;
  const auto at = [&](const Stream& stream, int64_t entry) {
    return static_cast<char*>(stream.data) + entry * count * stream.bytes;
  };
  for (int64_t entry = 0; entry < entries; ++entry) {
    Segment segment{0, count, entry, at(written, entry), at(grad, entry), nullptr, {}, update};
    for (size_t slot = 0; slot < slots_; ++slot) segment.state[slot] = at(state[slot], entry);
    assembly_.add(layout, segment);
  }
}

const std::vector<Job>& XlaStep::jobs(const Target& target) {
  read_numbers();
  for (size_t leaf = 0; leaf < leaves_; ++leaf) add_leaf(leaf);
  return assembly_.jobs(rule_, scalars_, target);
}

}  // namespace flatstep
