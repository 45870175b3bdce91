// The checks, in straight lists, and the assembly of a step from what passed them. See check.h.
#include "check.h"

#include <algorithm>
#include <stdexcept>

#include "describe.h"

namespace flatstep {

namespace {

std::string text(const int64_t* numbers, int count) {
  std::string all = "(";
  for (int i = 0; i < count; ++i) all += (i ? ", " : "") + std::to_string(numbers[i]);
  return all + (count == 1 ? ",)" : ")");
}

// The dtypes of parameters whose first moment may have that format; empty: the parameter's own.
std::string param_formats(std::string_view first_moment) {
  std::string all;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const LayoutDescription& layout = layouts()[i];
    if (find_layout(layout.param.name, layout.param.name, first_moment) != int(i)) continue;
    all += (all.empty() ? "" : " or ") + std::string(layout.param.name);
  }
  return all.empty() ? "none that has this mu_dtype" : all;
}

// -1 where a shape has more elements than memory has bytes, so that no product of what was counted can overflow.
int64_t element_count(const Array& array) {
  const int64_t* const end = array.shape + array.axes;
  if (std::find(array.shape, end, 0) != end) return 0;
  int64_t count = 1, bytes;
  for (const int64_t* length = array.shape; length != end; ++length) {
    if (*length < 0 || __builtin_mul_overflow(count, *length, &count)) return -1;
  }
  return __builtin_mul_overflow(count, array.item_bytes, &bytes) ? -1 : count;
}

// The addresses between an array's first and last byte in memory.
Written extent(const Array& array, Stream stream, int64_t leaf) {
  auto begin = reinterpret_cast<uintptr_t>(array.data), end = begin;
  bool outside = __builtin_add_overflow(end, array.item_bytes, &end);
  for (int axis = 0; axis < array.axes; ++axis) {
    int64_t reach;
    outside |= __builtin_mul_overflow(array.shape[axis] - 1, array.strides[axis], &reach);
    uintptr_t& edge = reach < 0 ? begin : end;
    outside |= __builtin_add_overflow(edge, reach, &edge);
  }
  if (outside) {
    throw Refusal{stream, leaf,
                  "reaches beyond all memory (shape " + text(array.shape, array.axes) + ", strides " +
                      text(array.strides, array.axes) + " bytes); pass an array whose elements exist"};
  }
  return {begin, end, leaf};
}

bool is_aligned(const Array& array) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(array.data);
  for (int axis = 0; axis < array.axes; ++axis) {
    if (array.shape[axis] > 1) bits |= uintptr_t(array.strides[axis]);
  }
  return bits % array.item_bytes == 0;
}

// The axes longer than 1, outermost in memory first.
std::vector<int> memory_order(const Array& array) {
  std::vector<int> order;
  for (int axis = 0; axis < array.axes; ++axis) {
    if (array.shape[axis] > 1) order.push_back(axis);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return array.strides[a] > array.strides[b]; });
  return order;
}

// Whether the elements fill their extent without gaps, each once, in increasing order.
bool is_dense(const Array& array, const std::vector<int>& order) {
  int64_t expected = array.item_bytes;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    if (array.strides[*axis] != expected) return false;
    expected *= array.shape[*axis];
  }
  return true;
}

Refusal wrong_dtype(Stream stream, int64_t leaf, std::string_view dtype, std::string expected, std::string mend) {
  return {stream, leaf, "has dtype " + std::string(dtype) + ", expected " + expected + "; " + mend, -1, true};
}

constexpr const char* misaligned = "is not aligned to its item size; copy it with np.array(x)";

}  // namespace

Plan::Plan(int rule, const std::vector<Array>& params, std::string_view first_moment)
    : rule_(rule), segments_(layouts().size()) {
  leaves_.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    leaves_.push_back(check_param(int64_t(i), params[i], first_moment));
    if (leaves_.back().count > 0) written_.push_back(extent(params[i], Stream::param, int64_t(i)));
  }
  std::sort(written_.begin(), written_.end(), [](const Written& a, const Written& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < written_.size(); ++i) {
    if (written_[i].begin >= written_[i - 1].end) continue;
    const auto [first, second] = std::minmax(written_[i - 1].leaf, written_[i].leaf);
    throw Refusal{Stream::param, second, "shares memory with {other}; each parameter needs memory of its own", first};
  }
}

Plan::Leaf Plan::check_param(int64_t leaf, const Array& param, std::string_view first_moment) const {
  const auto refuse = [&](std::string why) { throw Refusal{Stream::param, leaf, std::move(why)}; };
  const int layout = find_layout(param.dtype, param.dtype, first_moment);
  if (layout < 0) {
    throw wrong_dtype(
        Stream::param, leaf, param.dtype,
        param_formats(first_moment) + (first_moment.empty() ? "" : " with mu_dtype " + std::string(first_moment)),
        "convert it before making the optimizer");
  }
  if (!has_kernel(rule_, layout))
    refuse("has dtype " + std::string(param.dtype) + ", in which this rule's state would be rounded");
  if (param.read_only) refuse("is read-only, but parameters are updated in place; pass a writable array");
  const int64_t count = element_count(param);
  if (count < 0) refuse("has shape " + text(param.shape, param.axes) + ", more elements than any memory holds");
  std::vector<int> order = memory_order(param);
  if (count > 0 && !is_aligned(param)) refuse(misaligned);
  if (count > 0 && !is_dense(param, order)) {
    refuse("has gaps, repeats or reversed axes in memory (shape " + text(param.shape, param.axes) + ", strides " +
           text(param.strides, param.axes) +
           " bytes), expected a dense array; pass the whole array, or a copy by np.ascontiguousarray(x)");
  }
  return {param.data,
          layout,
          count,
          {param.shape, param.shape + param.axes},
          {param.strides, param.strides + param.axes},
          std::move(order),
          {}};
}

Plan::StateLayout Plan::state_layout(int slot) const {
  const RuleDescription& rule = rules()[size_t(rule_)];
  if (slot < 0 || slot >= int(rule.slots.size())) throw std::invalid_argument("the rule has no such slot");
  StateLayout placed{{}, 0};
  for (const Leaf& leaf : leaves_) {
    const LayoutDescription& layout = layouts()[size_t(leaf.layout)];
    const int item = layout.slot(rule.slots[size_t(slot)].role).bytes;
    // As many elements after a cache line's begin as the parameter, so that kernels meet both at one time.
    const int64_t phase = int64_t(reinterpret_cast<uintptr_t>(leaf.data) % cache_line) / layout.param.bytes;
    placed.offsets.push_back(placed.bytes + phase * item);
    placed.bytes = (placed.offsets.back() + leaf.count * item + cache_line - 1) / cache_line * cache_line;
  }
  return placed;
}

void Plan::place_state(int slot, void* memory, int64_t bytes) {
  const StateLayout placed = state_layout(slot);
  if (placed.bytes == 0) return;
  if (bytes < placed.bytes || reinterpret_cast<uintptr_t>(memory) % cache_line != 0)
    throw std::invalid_argument("a state buffer is too short, or does not begin a cache line");
  for (size_t i = 0; i < leaves_.size(); ++i) leaves_[i].state[slot] = static_cast<char*>(memory) + placed.offsets[i];
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const Written state{begin, begin + uintptr_t(bytes), -1};
  written_.insert(std::upper_bound(written_.begin(), written_.end(), state,
                                   [](const Written& a, const Written& b) { return a.begin < b.begin; }),
                  state);
}

void Plan::check_unchanged(int64_t index, const Array& param) const {
  const Leaf& leaf = leaves_[size_t(index)];
  if (param.read_only) throw Refusal{Stream::param, index, "has become read-only, but parameters are updated in place"};
  if (param.data != leaf.data || param.dtype != layouts()[size_t(leaf.layout)].param.name ||
      !std::equal(leaf.shape.begin(), leaf.shape.end(), param.shape, param.shape + param.axes) ||
      !std::equal(leaf.strides.begin(), leaf.strides.end(), param.strides, param.strides + param.axes)) {
    throw Refusal{Stream::param, index, "has another shape, dtype or place in memory than when the optimizer was made"};
  }
}

void Plan::check_grad(int64_t index, const Array& grad) const {
  const auto refuse = [&](std::string why, int64_t other = -1) {
    throw Refusal{Stream::grad, index, std::move(why), other};
  };
  const Leaf& leaf = leaves_[size_t(index)];
  const std::string_view dtype = layouts()[size_t(leaf.layout)].grad.name;
  if (!std::equal(leaf.shape.begin(), leaf.shape.end(), grad.shape, grad.shape + grad.axes)) {
    refuse("has shape " + text(grad.shape, grad.axes) + ", expected " +
           text(leaf.shape.data(), int(leaf.shape.size())) + " like its parameter");
  }
  if (grad.dtype != dtype) {
    throw wrong_dtype(Stream::grad, index, grad.dtype, std::string(dtype) + " like its parameter",
                      "convert it with .astype(np." + std::string(dtype) + ")");
  }
  if (leaf.count == 0) return;
  if (!is_aligned(grad)) refuse(misaligned);
  const Written read = extent(grad, Stream::grad, index);
  const auto after = std::lower_bound(written_.begin(), written_.end(), read.end,
                                      [](const Written& a, uintptr_t address) { return a.begin < address; });
  if (after != written_.begin() && (after - 1)->end > read.begin) {
    const int64_t other = (after - 1)->leaf;
    refuse(other < 0 ? "shares memory with the optimizer's state, which the step overwrites; pass a copy"
                     : "shares memory with {other}, which the step overwrites; pass a copy",
           other);
  }
}

const Walk* Plan::walk_over(const Leaf& leaf, const Array& grad) {
  const auto lies_alike = [&](int axis) { return grad.strides[axis] == leaf.strides[size_t(axis)]; };
  if (std::all_of(leaf.order.begin(), leaf.order.end(), lies_alike)) return nullptr;
  auto owned = std::make_unique<OwnedWalk>();
  for (const int axis : leaf.order) {
    const int64_t length = grad.shape[axis], stride = grad.strides[axis] / grad.item_bytes;
    if (!owned->shape.empty() && owned->strides.back() == stride * length) {  // goes on where the outer axis leaves off
      owned->shape.back() *= length;
      owned->strides.back() = stride;
    } else {
      owned->shape.push_back(length);
      owned->strides.push_back(stride);
    }
  }
  owned->walk = {int(owned->shape.size()), owned->shape.data(), owned->strides.data()};
  walks_.push_back(std::move(owned));
  return &walks_.back()->walk;
}

const std::vector<Job>& Plan::assemble(const std::vector<std::optional<Array>>& grads,
                                       const std::vector<Scalars>& scalars, const std::vector<int64_t>* rows,
                                       const Target& target) {
  walks_.clear();
  calls_.clear();
  jobs_.clear();
  for (auto& segments : segments_) segments.clear();
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!grads[i]) continue;
    check_grad(int64_t(i), *grads[i]);
    const Leaf& leaf = leaves_[i];
    if (leaf.count == 0) continue;
    std::vector<Segment>& segments = segments_[size_t(leaf.layout)];
    Segment segment{segments.empty() ? 0 : segments.back().first + segments.back().count,
                    leaf.count,
                    rows ? (*rows)[i] : 0,
                    leaf.data,
                    grads[i]->data,
                    walk_over(leaf, *grads[i]),
                    {}};
    std::copy(std::begin(leaf.state), std::end(leaf.state), segment.state);
    segments.push_back(segment);
  }
  calls_.reserve(segments_.size());  // jobs point into it
  for (size_t layout = 0; layout < segments_.size(); ++layout) {
    const std::vector<Segment>& segments = segments_[layout];
    if (segments.empty()) continue;
    calls_.push_back({segments.data(), int64_t(segments.size()), scalars.data()});
    jobs_.push_back({target.kernels[rule_][layout], &calls_.back(), segments.back().first + segments.back().count});
  }
  return jobs_;
}

}  // namespace flatstep
