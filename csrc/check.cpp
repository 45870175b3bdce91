// The checks, in straight lists, and the assembly of a step from what passed them. See check.h.
#include "check.h"

#include <algorithm>
#include <stdexcept>

#include "describe.h"

namespace flatstep {

namespace {

// NumPy's way to write a dtype of numbers in the other order of bytes: ">f4".
bool has_swapped_bytes(std::string_view dtype) {
  return dtype.size() > 1 && (dtype[0] == '>' || dtype[0] == '<') &&
         std::string_view("fciu").find(dtype[1]) != std::string_view::npos;
}

Refusal wrong_dtype(Stream stream, int64_t leaf, std::string_view dtype, std::string expected, std::string advice) {
  std::string found = "has dtype " + std::string(dtype);
  if (has_swapped_bytes(dtype)) found += ", whose byte order is not this machine's";
  return {stream, leaf, found + ", expected " + expected + "; " + advice, -1, true};
}

// "a, b or c", sorted.
std::string one_of(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  std::string all;
  for (size_t i = 0; i < names.size(); ++i) all += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return all;
}

// Why a rule cannot have parameters of this dtype with that first moment.
Refusal without_layout(int rule, int64_t leaf, std::string_view param, std::string_view first_moment) {
  std::vector<std::string> params, moments;
  for (size_t i = 0; i < layouts().size(); ++i) {
    const std::string own(layouts()[i].param.name), moment(layouts()[i].first_moment.name);
    if (!has_kernel(rule, int(i)) || find_layout(own, own, moment) != int(i)) continue;
    if (own == moment && own != "bfloat16") params.push_back(own);  // NumPy's arrays of bfloat16 cannot be read
    if (own == param) moments.push_back(moment);
  }
  if (moments.empty())
    return wrong_dtype(Stream::param, leaf, param, one_of(params), "convert it before making the optimizer");
  return {Stream::param, leaf,
          "has dtype " + std::string(param) + ", for which mu_dtype may be " + one_of(moments) + ", not " +
              std::string(first_moment) + "; choose one of these, or leave mu_dtype out",
          -1, true};
}

constexpr const char* misaligned = "is not aligned to its item size; copy it with np.array(x)";

}  // namespace

Plan::Plan(int rule, const std::vector<Array>& params, std::string_view first_moment) : rule_(rule) {
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
  if (layout < 0) throw without_layout(rule_, leaf, param.dtype, first_moment);
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
                      "convert it to " + std::string(dtype));
  }
  if (leaf.count == 0) return;
  if (!is_aligned(grad)) refuse(misaligned);
  const Written read = extent(grad, Stream::grad, index);
  auto other = std::lower_bound(written_.begin(), written_.end(), read.end,
                                [](const Written& a, uintptr_t address) { return a.begin < address; });
  while (other != written_.begin() && (--other)->end > read.begin) {
    if (!touches(grad, read, *other)) continue;
    refuse(other->leaf < 0 ? "shares memory with the optimizer's state, which the step overwrites; pass a copy"
                           : "shares memory with {other}, which the step overwrites; pass a copy",
           other->leaf);
  }
}

const std::vector<Job>& Plan::assemble(const std::vector<std::optional<Array>>& grads,
                                       const std::vector<Scalars>& scalars, const std::vector<int64_t>* rows,
                                       const Target& target) {
  assembly_.clear();
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!grads[i]) continue;
    check_grad(int64_t(i), *grads[i]);
    const Leaf& leaf = leaves_[i];
    if (leaf.count == 0) continue;
    Segment segment{0,         leaf.count,     rows ? (*rows)[i] : 0,
                    leaf.data, grads[i]->data, assembly_.walk_over(leaf.order, leaf.strides.data(), *grads[i]),
                    {}};
    std::copy(std::begin(leaf.state), std::end(leaf.state), segment.state);
    assembly_.add(leaf.layout, segment);
  }
  return assembly_.jobs(rule_, scalars, target);
}

}  // namespace flatstep
