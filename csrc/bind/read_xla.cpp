// See read_xla.h.
#include "read_xla.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "describe.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;

constexpr int64_t dense = 1;  // the stride of every tensor here

static_assert(int(ffi::DataType::F16) == known_dtypes[0].xla_type &&
              int(ffi::DataType::BF16) == known_dtypes[1].xla_type &&
              int(ffi::DataType::F32) == known_dtypes[2].xla_type &&
              int(ffi::DataType::F64) == known_dtypes[3].xla_type);

XlaStep::Buffer buffer_of(const ffi::AnyBuffer& buffer) {
  return {buffer.untyped_data(), buffer.element_type(), int64_t(buffer.size_bytes()), int64_t(buffer.element_count()),
          buffer.dimensions()};
}

int known_rule(std::string_view name) {
  const int rule = find_rule(name);
  if (rule < 0) reject_xla("there is no rule named " + std::string(name));
  return rule;
}

}  // namespace

Dtype dtype_of(ffi::DataType dtype) {
  return find_dtype([=](const DtypeNames& known) { return known.xla_type == int(dtype); });
}

double& number_at(Scalars& scalars, size_t index) {
  return index < scalar_count ? scalars.*common_scalars[index].member : scalars.hyperparameters[index - scalar_count];
}

void reject_xla(const std::string& text) { throw std::invalid_argument("flatstep: " + text); }

XlaStep::XlaStep(const XlaAttributes& attributes, ffi::RemainingArgs args, ffi::RemainingRets rets, const Copy& copy,
                 bool has_workspace)
    : rule(known_rule(attributes.rule)),
      attributes_(attributes),
      args_(args),
      rets_(rets),
      slots_(rules()[size_t(rule)].slots.size()),
      has_averages_(attributes.average != 0),
      step_(rule, slot_names(rule), {}) {
  // For each parameter: its state and average, and the parameter or its update.
  const size_t written = slots_ + 1 + has_averages_;
  const size_t results = rets.size() - (has_workspace && rets.size() > 0), count = results / written;
  const size_t numbers = 1 + attributes.traced.size() + attributes.skips,
               read = attributes.makes_update ? written : written + 1;
  if (results != count * written || args.size() != numbers + count * read ||
      attributes.numbers.size() != scalar_count + rules()[size_t(rule)].hyperparameters.size())
    reject_xla("a step has too many or too few operands");
  if (has_workspace) workspace = result(results);
  read_numbers();
  for (size_t index = 0; index < count; ++index) read_parameter(index, count, copy);
}

XlaStep::Buffer XlaStep::operand(size_t index) const {
  const auto buffer = args_.get<ffi::AnyBuffer>(index);
  if (!buffer) reject_xla(buffer.error().message());
  return buffer_of(*buffer);
}

XlaStep::Buffer XlaStep::result(size_t index) const {
  auto buffer = rets_.get<ffi::AnyBuffer>(index);
  if (!buffer) reject_xla(buffer.error().message());
  return buffer_of(**buffer);
}

// XLA puts a result where its operand is; should it ever not do so, the operand is copied there first.
XlaStep::Buffer XlaStep::result(size_t index, size_t operand_index, const Copy& copy) const {
  const Buffer from = operand(operand_index), to = result(index);
  if (to.count != from.count || to.dtype != from.dtype) reject_xla("a result is not like its operand");
  if (to.data != from.data) copy(to.data, from.data, size_t(from.bytes));
  return {to.data, from.dtype, from.bytes, from.count, from.shape};
}

Tensor XlaStep::tensor_of(const Buffer& buffer) {
  shapes_.push_back(entries > 0 ? buffer.count / entries : 0);
  return {buffer.data, &shapes_.back(), &dense, 1, dtype_of(buffer.dtype), false, {}, nullptr};
}

void XlaStep::read_numbers() {
  for (size_t i = 0; i < attributes_.numbers.size(); ++i) number_at(fixed, i) = attributes_.numbers[i];
  counts = operand(0);
  entries = counts.count;
  if (counts.dtype != ffi::DataType::S32) reject_xla("the count of a step is not int32");
  for (size_t k = 0; k < attributes_.traced.size(); ++k) {
    const Number number{size_t(attributes_.traced[k]), operand(1 + k)};
    if (number.values.count != entries || number.index >= attributes_.numbers.size())
      reject_xla("a number has another shape");
    if (number.values.dtype != ffi::DataType::F32 && number.values.dtype != ffi::DataType::F64)
      reject_xla("a number of a step is neither float32 nor float64");
    traced.push_back(number);
  }
  if (!attributes_.skips) return;
  skipped = operand(1 + traced.size());
  if (skipped.count != entries || skipped.dtype != ffi::DataType::PRED) reject_xla("a number has another shape");
}

void XlaStep::read_parameter(size_t index, size_t count, const Copy& copy) {
  const bool update = attributes_.makes_update;
  const size_t begin = 1 + attributes_.traced.size() + attributes_.skips;
  const size_t averages = begin + count * (update ? slots_ : slots_ + 1), grads = averages + count * has_averages_;
  const Buffer written = result(index, update ? grads + index : begin + index, copy);
  const ffi::AnyBuffer::Dimensions batch = counts.shape;
  if (written.shape.size() < batch.size() || !std::equal(batch.begin(), batch.end(), written.shape.begin()))
    reject_xla("a parameter is of another batch than the numbers");
  Parameter parameter{int64_t(index), tensor_of(written), tensor_of(operand(grads + index)), {}, 0, update};
  for (size_t slot = 0; slot < slots_; ++slot) {
    const size_t from = begin + (update ? slot : slot + 1) * count + index;
    parameter.state[slot] = tensor_of(result((slot + 1) * count + index, from, copy));
  }
  if (has_averages_)
    parameter.average = read_average(parameter.param, (slots_ + 1) * count + index, averages + index, copy);
  try {
    if (const Step::Size size = step_.size_of(parameter); size.count > 0) parameters.push_back({parameter, size});
  } catch (const ArgumentError& error) {
    reject_xla((error.operand == Operand::param ? "parameter " : "gradient ") + std::to_string(error.index) + " " +
               error.text);
  }
}

// Those of a step are of one dtype.
void* XlaStep::read_average(const Tensor& param, size_t index, size_t from, const Copy& copy) {
  const Buffer buffer = result(index, from, copy);
  const Dtype dtype = dtype_of(buffer.dtype);
  const Dtype computed = param.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32;
  average_bytes_ = bytes_of(dtype);
  if (dtype != param.dtype && dtype != computed) reject_xla("an average is of another dtype than its parameter");
  if (param.shape[0] * entries != buffer.count) reject_xla("an average is not like its parameter");
  step_.set_tail(TailOptions{false, dtype == param.dtype, AverageForm(attributes_.average - 1), attributes_.decay});
  return buffer.data;
}

const std::vector<Job>& XlaStep::jobs(const Target& target) {
  for (int64_t entry = 0; entry < entries; ++entry) {
    Scalars& scalars = scalars_.emplace_back(fixed);
    scalars.count = static_cast<const int32_t*>(counts.data)[entry];
    for (const auto& [index, values] : traced) {
      number_at(scalars, index) = values.dtype == ffi::DataType::F64
                                      ? static_cast<const double*>(values.data)[entry]
                                      : double(static_cast<const float*>(values.data)[entry]);
    }
  }
  const auto advance = [](Tensor& tensor) {
    tensor.data = static_cast<char*>(tensor.data) + *tensor.shape * bytes_of(tensor.dtype);
  };
  for (auto [parameter, size] : parameters) {
    for (; parameter.row < entries; ++parameter.row) {
      if (!is_skipped(parameter.row)) {
        step_.append(size, parameter);  // what XLA passes is dense and aligned, and overlaps nowhere
      } else if (parameter.makes_update) {
        std::memset(parameter.param.data, 0, size_t(size.count * bytes_of(parameter.param.dtype)));
      }
      if (parameter.average) parameter.average = static_cast<char*>(parameter.average) + size.count * average_bytes_;
      advance(parameter.param);
      advance(parameter.grad);
      for (size_t slot = 0; slot < slots_; ++slot) advance(parameter.state[slot]);
    }
  }
  return step_.jobs(scalars_, target);
}

}  // namespace flatstep
