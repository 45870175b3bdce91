// See step.h.
#include "step.h"

#include <algorithm>

#include "describe.h"

namespace flatstep {

namespace {

constexpr const char* misaligned = "is not aligned to its item size; pass a copy";
constexpr const char* elsewhere = "is on another device than its parameter; move it there";

std::string strides_of(const Tensor& tensor) { return text_of(tensor.strides, tensor.ndim); }

Extent extent_of_dense(const Tensor& tensor, int64_t count, int64_t index, const char* slot = nullptr) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data);
  return {begin, begin + uintptr_t(count * bytes_of(tensor.dtype)), index, slot};
}

// "a, b or c", sorted.
std::string one_of(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  std::string all;
  for (size_t i = 0; i < names.size(); ++i) all += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return all;
}

// Why an optimizer cannot have a parameter of this dtype with that first moment.
ArgumentError without_layout(int rule, int64_t index, const Tensor& param, std::optional<Dtype> first_moment) {
  std::vector<std::string> params, moments;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    if (!has_kernel(rule, int(i)) || find_layout(layout.param, layout.param, layout.first_moment) != int(i)) continue;
    if (layout.param == layout.first_moment && layout.param != Dtype::bfloat16)  // NumPy cannot describe bfloat16
      params.emplace_back(name_of(layout.param));
    if (layout.param == param.dtype) moments.emplace_back(name_of(layout.first_moment));
  }
  if (moments.empty() || !first_moment) {
    return {
        Operand::param, index,
        "has dtype " + dtype_of(param) + ", expected " + one_of(params) + "; convert it before making the optimizer",
        -1, true};
  }
  return {Operand::param, index,
          "has dtype " + dtype_of(param) + ", for which mu_dtype may be " + one_of(moments) + ", not " +
              std::string(name_of(*first_moment)) + "; choose one of these, or leave mu_dtype out",
          -1, true};
}

}  // namespace

int check_new_parameter(int rule, int64_t index, const Tensor& param, std::optional<Dtype> first_moment) {
  const auto reject = [&](std::string why) { throw ArgumentError{Operand::param, index, std::move(why)}; };
  const int layout = find_layout(param.dtype, param.dtype, first_moment.value_or(param.dtype));
  if (layout < 0) throw without_layout(rule, index, param, first_moment);
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
  check_devices(parameter);
  const auto [layout, count] = size_of(parameter);
  if (count == 0) return true;
  check_alignment(parameter);
  if (!is_dense(parameter.param)) return false;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!have_same_strides(parameter.param, parameter.state[slot])) return false;
  }
  Segment& segment = append({layout, count}, parameter);
  add_gradient(parameter, segment);
  add_state(parameter, count);
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
  return segments.emplace_back(segment);
}

Step::Size Step::size_of(const Parameter& parameter) {
  check_shapes(parameter);
  return {find_layout(parameter), element_count(parameter.param)};
}

void Step::check_devices(const Parameter& parameter) const {
  const auto is_elsewhere = [&](const Tensor& tensor) { return tensor.device != parameter.param.device; };
  if (is_elsewhere(parameter.grad)) throw ArgumentError{Operand::grad, parameter.index, elsewhere};
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (is_elsewhere(parameter.state[slot]))
      throw ArgumentError{Operand::param, parameter.index, "has a state " + slots_[slot] + " that " + elsewhere};
  }
}

void Step::check_shapes(const Parameter& parameter) const {
  const Tensor& param = parameter.param;
  if (!have_same_shape(param, parameter.grad)) {
    throw ArgumentError{
        Operand::grad, parameter.index,
        "has shape " + shape_of(parameter.grad) + ", expected " + shape_of(param) + " like its parameter"};
  }
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (have_same_shape(param, parameter.state[slot])) continue;
    throw ArgumentError{Operand::param, parameter.index,
                        "has shape " + shape_of(param) + ", but its " + slots_[slot] + " has " +
                            shape_of(parameter.state[slot]) + "; load the state that belongs to it"};
  }
}

void Step::check_alignment(const Parameter& parameter) const {
  if (!is_aligned(parameter.param)) throw ArgumentError{Operand::param, parameter.index, misaligned};
  if (!is_aligned(parameter.grad)) throw ArgumentError{Operand::grad, parameter.index, misaligned};
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!is_aligned(parameter.state[slot]))
      throw ArgumentError{Operand::param, parameter.index, "has a state " + slots_[slot] + " that " + misaligned};
  }
}

int Step::find_layout(const Parameter& parameter) {
  uint64_t dtypes = uint64_t(parameter.param.dtype) | uint64_t(parameter.grad.dtype) << 8;
  for (size_t slot = 0; slot < slots_.size(); ++slot)
    dtypes |= uint64_t(parameter.state[slot].dtype) << (16 + 8 * slot);
  if (dtypes == last_dtypes_) return last_layout_;
  Dtype state[max_slots];
  for (size_t slot = 0; slot < slots_.size(); ++slot) state[slot] = parameter.state[slot].dtype;
  const bool is_allowed = options_.grad_may_differ_in_dtype || parameter.grad.dtype == parameter.param.dtype;
  const int layout = is_allowed ? find_kernel(rule_, parameter.param.dtype, parameter.grad.dtype, state) : -1;
  if (layout < 0) reject_dtypes(parameter);
  last_dtypes_ = dtypes;
  return last_layout_ = layout;
}

void Step::reject_dtypes(const Parameter& parameter) const {
  const std::string param = dtype_of(parameter.param), grad = dtype_of(parameter.grad);
  if (!options_.grad_may_differ_in_dtype) {
    throw ArgumentError{Operand::grad, parameter.index,
                        "has dtype " + grad + ", expected " + param + " like its parameter; convert it to " + param, -1,
                        true};
  }
  std::string found = "has dtype " + param + ", its gradient " + grad;
  for (size_t slot = 0; slot < slots_.size(); ++slot)
    found += ", its " + slots_[slot] + " " + dtype_of(parameter.state[slot]);
  throw ArgumentError{Operand::param, parameter.index,
                      found +
                          ": there is no kernel for these together; the gradient should have its parameter's dtype or "
                          "float32, and so should the state",
                      -1, true};
}

void Step::add_gradient(const Parameter& parameter, Segment& segment) {
  const Tensor &param = parameter.param, &grad = parameter.grad;
  if (!options_.has_fixed_memory) overlap_.add_written(extent_of_dense(param, segment.count, parameter.index));
  if (have_same_strides(param, grad)) {
    const bool is_param = grad.data == param.data && grad.dtype == param.dtype;
    if (!is_param || !options_.grad_may_be_param)
      overlap_.add_read(extent_of_dense(grad, segment.count, parameter.index));
    return;
  }
  Extent read{0, 0, parameter.index, nullptr};
  if (!find_extent(grad, read)) {
    throw ArgumentError{Operand::grad, parameter.index,
                        "reaches beyond all memory (shape " + shape_of(grad) + ", strides " + strides_of(grad) +
                            " elements); pass an array whose elements exist"};
  }
  segment.walk = walk_over(param, grad);
  overlap_.add_read(read, grad);
}

void Step::add_state(const Parameter& parameter, int64_t count) {
  if (options_.has_fixed_memory) return;
  for (size_t slot = 0; slot < slots_.size(); ++slot)
    overlap_.add_state(extent_of_dense(parameter.state[slot], count, parameter.index, slots_[slot].c_str()));
}

// How to visit the gradient in the order in which its parameter lies in memory.
const Walk* Step::walk_over(const Tensor& param, const Tensor& grad) {
  OwnedWalk& owned = walks_.emplace_back();
  for (const int axis : memory_order(param)) {
    const int64_t length = grad.shape[axis], stride = grad.strides[axis];
    if (!owned.shape.empty() && owned.strides.back() == stride * length) {  // continues the outer axis
      owned.shape.back() *= length;
      owned.strides.back() = stride;
    } else {
      owned.shape.push_back(length);
      owned.strides.push_back(stride);
    }
  }
  owned.walk = {int(owned.shape.size()), owned.shape.data(), owned.strides.data()};
  return &owned.walk;
}

const std::vector<Job>& Step::jobs(const std::vector<Scalars>& scalars, const Target& target) {
  calls_.reserve(segments_.size());  // jobs point into it
  for (size_t layout = 0; layout < segments_.size(); ++layout) {
    const std::vector<Segment>& segments = segments_[layout];
    if (segments.empty()) continue;
    calls_.push_back({segments.data(), int64_t(segments.size()), scalars.data()});
    jobs_.push_back(
        {int(layout), target.kernels[rule_][layout], &calls_.back(), segments.back().first + segments.back().count});
  }
  return jobs_;
}

}  // namespace flatstep
