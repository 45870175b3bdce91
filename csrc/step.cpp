// See step.h.
#include "step.h"

#include <algorithm>

#include "describe.h"

namespace flatstep {

namespace {

constexpr const char* misaligned = "is not aligned to its item size; pass a copy";
constexpr const char* on_another_device = "is on another device than its parameter; move it there";
constexpr const char* average_name = "ema";

[[noreturn]] void reject(const Parameter& parameter, Operand operand, std::string why, bool is_type_error = false) {
  throw ArgumentError{operand, parameter.index, std::move(why), -1, is_type_error};
}

[[noreturn]] void reject_shape(const Parameter& parameter, const std::string& slot, const Tensor& state) {
  reject(parameter, Operand::param,
         "has shape " + shape_of(parameter.param) + ", but its " + slot + " has " + shape_of(state) +
             "; load the state that belongs to it");
}

std::string strides_of(const Tensor& tensor) { return text_of(tensor.strides, tensor.ndim); }

Extent extent_of_dense(const Tensor& tensor, int64_t count, int64_t index, const char* slot = nullptr) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data);
  return {begin, begin + uintptr_t(count * bytes_of(tensor.dtype)), index, slot};
}

// Of a parameter's gradient.
Extent extent_of_strided(const Parameter& parameter) {
  const Tensor& grad = parameter.grad;
  Extent extent{0, 0, parameter.index, nullptr};
  if (!find_extent(grad, extent)) {
    reject(parameter, Operand::grad,
           "reaches beyond all memory (shape " + shape_of(grad) + ", strides " + strides_of(grad) +
               " elements); pass an array whose elements exist");
  }
  return extent;
}

// "a, b or c", sorted.
std::string one_of(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  std::string all;
  for (size_t i = 0; i < names.size(); ++i) all += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return all;
}

// Why an optimizer cannot have a parameter of this dtype with that first moment.
std::string why_no_layout(int rule, const Tensor& param, std::optional<Dtype> first_moment) {
  std::vector<std::string> params, moments;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    if (!has_kernel(rule, int(i)) || find_layout(layout.param, layout.param, layout.first_moment) != int(i)) continue;
    if (layout.param == layout.first_moment && layout.param != Dtype::bfloat16)  // NumPy cannot describe bfloat16
      params.emplace_back(name_of(layout.param));
    if (layout.param == param.dtype) moments.emplace_back(name_of(layout.first_moment));
  }
  const std::string found = "has dtype " + dtype_of(param);
  if (moments.empty() || !first_moment)
    return found + ", expected " + one_of(params) + "; convert it before making the optimizer";
  return found + ", for which mu_dtype may be " + one_of(moments) + ", not " + std::string(name_of(*first_moment)) +
         "; choose one of these, or leave mu_dtype out";
}

}  // namespace

int check_new_parameter(int rule, int64_t index, const Tensor& param, std::optional<Dtype> first_moment) {
  const auto reject = [&](std::string why) { throw ArgumentError{Operand::param, index, std::move(why)}; };
  const int layout = find_layout(param.dtype, param.dtype, first_moment.value_or(param.dtype));
  if (layout < 0) throw ArgumentError{Operand::param, index, why_no_layout(rule, param, first_moment), -1, true};
  if (!has_kernel(rule, layout))
    reject("has dtype " + dtype_of(param) + ", in which this rule's state would be rounded");
  if (param.read_only) reject("is read-only, but parameters are updated in place; pass a writable array");
  const int64_t count = element_count(param);
  if (count < 0) reject("has shape " + shape_of(param) + ", more elements than any memory holds");
  if (count == 0) return layout;
  if (!is_aligned(param)) reject(misaligned);
  if (!is_dense(param)) {
    reject("has gaps, repeats or reversed axes in memory (shape " + shape_of(param) + ", strides " + strides_of(param) +
           " elements), expected a dense array; pass the whole array, or a copy by np.ascontiguousarray(x)");
  }
  return layout;
}

Step::Step(int rule, std::vector<std::string> slots, StepOptions options)
    : rule_(rule), slots_(std::move(slots)), options_(options), segments_(layouts().size()) {}

void Step::begin() {
  overlap_.clear(options_.has_fixed_memory);
  walks_.clear();
  calls_.clear();
  jobs_.clear();
  for (std::vector<Segment>& segments : segments_) segments.clear();
}

bool Step::add(const Parameter& parameter) {
  const Tensor &param = parameter.param, &grad = parameter.grad;
  check_each(parameter, [&](const Tensor& tensor) { return tensor.device == param.device; }, on_another_device);
  const auto [layout, count] = size_of(parameter);
  if (count == 0) return true;
  check_each(parameter, is_aligned, misaligned);
  if (!is_dense(param)) return false;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!have_same_strides(param, parameter.state[slot])) return false;
  }
  Segment& segment = append({layout, count}, parameter);
  if (!options_.has_fixed_memory) {
    overlap_.add_written(extent_of_dense(param, count, parameter.index));
    for (size_t slot = 0; slot < slots_.size(); ++slot)
      add_state(parameter.state[slot], count, parameter.index, slots_[slot].c_str());
  }
  if (!have_same_strides(param, grad)) {
    overlap_.add_read(extent_of_strided(parameter), grad);  // before products of its strides are taken
    segment.walk = walk_over(param, grad);
  } else if (grad.data != param.data || grad.dtype != param.dtype || !options_.grad_may_be_param) {
    overlap_.add_read(extent_of_dense(grad, count, parameter.index));
  }
  if (tail_ && tail_->zeroes_gradients) check_zeroed(parameter);
  return true;
}

Segment& Step::append(const Size& size, const Parameter& parameter) {
  std::vector<Segment>& segments = segments_[size_t(size.layout)];
  Segment segment{};
  segment.first = segments.empty() ? 0 : segments.back().first + segments.back().count;
  segment.count = size.count;
  segment.scalars = parameter.row;
  segment.makes_update = parameter.makes_update;
  segment.param = parameter.param.data;
  segment.grad = parameter.grad.data;
  for (size_t slot = 0; slot < slots_.size(); ++slot) segment.state[slot] = parameter.state[slot].data;
  segment.average = parameter.average;
  return segments.emplace_back(segment);
}

bool Step::set_average(Parameter& parameter, const Tensor& average) {
  const Tensor& param = parameter.param;
  const int64_t count = size_of(parameter).count;
  const auto check = [&](bool fits, const char* why) {
    if (!fits) reject(parameter, Operand::param, "has a state " + std::string(average_name) + " that " + why);
  };
  check(average.device == param.device, on_another_device);
  if (!have_same_shape(param, average)) reject_shape(parameter, average_name, average);
  const Dtype computed = param.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32;
  const Dtype expected = tail_ && tail_->average_in_own_dtype ? param.dtype : computed;
  if (average.dtype != expected) {
    reject(parameter, Operand::param,
           "has dtype " + dtype_of(param) + ", but its " + average_name + " has dtype " + dtype_of(average) +
               ", expected " + std::string(name_of(expected)) + "; convert it, or delete it to start again",
           true);
  }
  if (count == 0) return true;
  check(is_aligned(average), misaligned);
  if (!have_same_strides(param, average)) return false;
  parameter.average = average.data;
  add_state(average, count, parameter.index, average_name);
  return true;
}

void Step::check_zeroed(const Parameter& parameter) {
  const Tensor& grad = parameter.grad;
  if (grad.data == parameter.param.data) {
    reject(parameter, Operand::grad,
           "lies where its parameter does, but zero_grads sets it to zero; pass a copy, or make the optimizer without "
           "zero_grads");
  }
  if (grad.read_only) reject(parameter, Operand::grad, "is read-only, but zero_grads sets it to zero; pass a copy");
  if (has_repeats(grad))
    reject(parameter, Operand::grad, "has elements that share memory, but zero_grads sets it to zero; pass a copy");
  overlap_.write_what_is_read();
}

Step::Size Step::size_of(const Parameter& parameter) {
  check_shapes(parameter);
  return {find_layout(parameter), element_count(parameter.param)};
}

template <class Fits>
void Step::check_each(const Parameter& parameter, const Fits& fits, const char* why) const {
  if (!fits(parameter.param)) reject(parameter, Operand::param, why);
  if (!fits(parameter.grad)) reject(parameter, Operand::grad, why);
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!fits(parameter.state[slot])) reject(parameter, Operand::param, "has a state " + slots_[slot] + " that " + why);
  }
}

void Step::check_shapes(const Parameter& parameter) const {
  const Tensor& param = parameter.param;
  if (!have_same_shape(param, parameter.grad)) {
    reject(parameter, Operand::grad,
           "has shape " + shape_of(parameter.grad) + ", expected " + shape_of(param) + " like its parameter");
  }
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (have_same_shape(param, parameter.state[slot])) continue;
    reject_shape(parameter, slots_[slot], parameter.state[slot]);
  }
}

int Step::find_layout(const Parameter& parameter) {
  std::array<Dtype, 2 + max_slots> dtypes{parameter.param.dtype, parameter.grad.dtype};
  for (size_t slot = 0; slot < slots_.size(); ++slot) dtypes[2 + slot] = parameter.state[slot].dtype;
  if (last_layout_ >= 0 && dtypes == last_dtypes_) return last_layout_;
  const bool is_allowed = options_.grad_may_differ_in_dtype || dtypes[0] == dtypes[1];
  const int layout = is_allowed ? find_kernel(rule_, dtypes[0], dtypes[1], &dtypes[2]) : -1;
  if (layout < 0) reject_dtypes(parameter);
  last_dtypes_ = dtypes;
  return last_layout_ = layout;
}

void Step::reject_dtypes(const Parameter& parameter) const {
  const std::string param = dtype_of(parameter.param), grad = dtype_of(parameter.grad);
  if (!options_.grad_may_differ_in_dtype) {
    reject(parameter, Operand::grad,
           "has dtype " + grad + ", expected " + param + " like its parameter; convert it to " + param, true);
  }
  std::string found = "has dtype " + param + ", its gradient " + grad;
  for (size_t slot = 0; slot < slots_.size(); ++slot)
    found += ", its " + slots_[slot] + " " + dtype_of(parameter.state[slot]);
  reject(parameter, Operand::param,
         found +
             ": there is no kernel for these together; the gradient should have its parameter's dtype or float32, "
             "and so should the state",
         true);
}

void Step::add_state(const Tensor& dense, int64_t count, int64_t index, const char* slot) {
  overlap_.add_state(extent_of_dense(dense, count, index, slot));
}

// How to visit the gradient in the order in which its parameter lies in memory.
const Walk* Step::walk_over(const Tensor& param, const Tensor& grad) {
  return &walks_.emplace_back(grad, memory_order(param)).walk;
}

void Step::zero_gradients_if_asked(const Target& target) const {
  if (!tail_ || !tail_->zeroes_gradients) return;
  constexpr int64_t at_a_time = 1 << 20;
  for (size_t layout = 0; layout < segments_.size(); ++layout) {
    const LayoutDescription& own = layouts()[layout];
    const Tail tail{target.tails[size_t(own.param)][0], bytes_of(own.grad), AverageForm::interpolated, 0};
    for (Segment segment : segments_[layout]) {
      segment.average = nullptr;
      for (int64_t first = 0; first < segment.count; first += at_a_time)
        tail.finish(tail, segment, 0, first, int(std::min(at_a_time, segment.count - first)));
    }
  }
}

const std::vector<Job>& Step::jobs(const std::vector<Scalars>& scalars, const Target& target) {
  if (tail_) tails_.resize(segments_.size());
  calls_.reserve(segments_.size());  // jobs point into it
  for (size_t layout = 0; layout < segments_.size(); ++layout) {
    const std::vector<Segment>& segments = segments_[layout];
    if (segments.empty()) continue;
    if (tail_) {
      const LayoutDescription& own = layouts()[layout];
      const FinishTile finish = target.tails[size_t(own.param)][tail_->average_in_own_dtype];
      tails_[layout] = {finish, tail_->zeroes_gradients ? bytes_of(own.grad) : 0, tail_->form, tail_->decay,
                        tail_->average_in_own_dtype};
    }
    calls_.push_back({segments.data(), int64_t(segments.size()), scalars.data(), tail_ ? &tails_[layout] : nullptr});
    jobs_.push_back(
        {int(layout), target.kernels[rule_][layout], &calls_.back(), segments.back().first + segments.back().count});
  }
  return jobs_;
}

}  // namespace flatstep
