// See tensors.h.
#include "tensors.h"

#include <algorithm>

#include "describe.h"

namespace flatstep {

int64_t element_count(const Tensor& tensor) {
  int64_t count = 1;
  for (int axis = 0; axis < tensor.axes; ++axis) count *= tensor.shape[axis];
  return count;
}

bool is_contiguous(const Tensor& tensor) {
  int64_t expected = 1;
  for (int axis = tensor.axes; axis-- > 0; expected *= tensor.shape[axis]) {
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != expected) return false;
  }
  return true;
}

namespace {

std::string shape_of(const Tensor& tensor) { return text(tensor.shape, tensor.axes); }

bool same_shape(const Tensor& a, const Tensor& b) {
  return a.axes == b.axes && std::equal(a.shape, a.shape + a.axes, b.shape);
}

// For tensors of one shape: an axis of length 1 may have any stride.
bool lies_alike(const Tensor& a, const Tensor& b) {
  for (int axis = 0; axis < a.axes; ++axis) {
    if (a.shape[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
  }
  return true;
}

bool is_aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.data) % tensor.item_bytes == 0; }

// The tensor as an Array, whose strides are in bytes.
struct InBytes {
  explicit InBytes(const Tensor& tensor)
      : strides(tensor.strides, tensor.strides + tensor.axes),
        array{tensor.data, tensor.dtype, tensor.item_bytes, tensor.axes, tensor.shape, nullptr, false} {
    for (int64_t& stride : strides) stride *= tensor.item_bytes;
    array.strides = strides.data();
  }
  std::vector<int64_t> strides;
  Array array;
};

bool is_dense(const Tensor& tensor) {
  if (is_contiguous(tensor)) return true;  // needs no sorting
  const InBytes bytes(tensor);
  return is_dense(bytes.array, memory_order(bytes.array));
}

Written extent_of_dense(const Tensor& tensor, int64_t count, int64_t leaf) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data);
  return {begin, begin + uintptr_t(count * tensor.item_bytes), leaf};
}

bool starts_earlier(const Written& a, const Written& b) { return a.begin < b.begin; }

}  // namespace

void TensorStep::clear() {
  assembly_.clear();
  written_.clear();
  read_.clear();
}

bool TensorStep::add(const TensorLeaf& leaf) {
  check_devices(leaf);
  check_shapes(leaf);
  const int layout = layout_of(leaf);
  const int64_t count = element_count(leaf.param);
  if (count == 0) return true;
  check_alignment(leaf);
  if (!is_dense(leaf.param)) return false;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!lies_alike(leaf.param, leaf.state[slot])) return false;
  }

  Segment segment{0, count, leaf.scalars, leaf.param.data, leaf.grad.data, nullptr, {}};
  for (size_t slot = 0; slot < slots_.size(); ++slot) segment.state[slot] = leaf.state[slot].data;
  if (lies_alike(leaf.param, leaf.grad)) {
    // A gradient may be its parameter: each element is read before it is written.
    const bool is_param = leaf.grad.data == leaf.param.data && leaf.grad.dtype == leaf.param.dtype;
    if (!is_param) read_.push_back(extent_of_dense(leaf.grad, count, leaf.index));
  } else {
    const InBytes param(leaf.param), grad(leaf.grad);
    read_.push_back(extent(grad.array, Stream::grad, leaf.index));
    segment.walk = assembly_.walk_over(memory_order(param.array), param.array.strides, grad.array);
  }
  written_.push_back(extent_of_dense(leaf.param, count, leaf.index));
  assembly_.add(layout, segment);
  return true;
}

void TensorStep::check_devices(const TensorLeaf& leaf) const {
  constexpr const char* elsewhere = "is on another device than its parameter; move it there";
  if (leaf.grad.device != leaf.param.device) throw Refusal{Stream::grad, leaf.index, elsewhere};
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (leaf.state[slot].device != leaf.param.device)
      throw Refusal{Stream::param, leaf.index, "has a state " + slots_[slot] + " that " + elsewhere};
  }
}

void TensorStep::check_shapes(const TensorLeaf& leaf) const {
  if (!same_shape(leaf.param, leaf.grad)) {
    throw Refusal{Stream::grad, leaf.index,
                  "has shape " + shape_of(leaf.grad) + ", expected " + shape_of(leaf.param) + " like its parameter"};
  }
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (same_shape(leaf.param, leaf.state[slot])) continue;
    throw Refusal{Stream::param, leaf.index,
                  "has shape " + shape_of(leaf.param) + ", but its " + slots_[slot] + " has " +
                      shape_of(leaf.state[slot]) + "; load the state that belongs to it"};
  }
}

void TensorStep::check_alignment(const TensorLeaf& leaf) const {
  constexpr const char* misaligned = "is not aligned to its item size; clone it";
  if (!is_aligned(leaf.param)) throw Refusal{Stream::param, leaf.index, misaligned};
  if (!is_aligned(leaf.grad)) throw Refusal{Stream::grad, leaf.index, misaligned};
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (!is_aligned(leaf.state[slot]))
      throw Refusal{Stream::param, leaf.index, "has a state " + slots_[slot] + " that " + misaligned};
  }
}

int TensorStep::layout_of(const TensorLeaf& leaf) {
  Dtypes dtypes{leaf.param.dtype, leaf.grad.dtype, {}, {}};
  bool agree = true;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    const Role role = rules()[size_t(rule_)].slots[slot].role;
    std::string_view& known = role == Role::first_moment    ? dtypes.first_moment
                              : role == Role::second_moment ? dtypes.second_moment
                                                            : dtypes.param;
    const std::string_view found = leaf.state[slot].dtype;
    if (known.empty()) known = found;
    agree = agree && known == found;
  }
  if (agree && dtypes == last_dtypes_) return last_layout_;
  const int layout = agree ? find_layout(dtypes.param, dtypes.grad, dtypes.first_moment, dtypes.second_moment) : -1;
  if (layout < 0 || !has_kernel(rule_, layout)) {
    std::string found = "has dtype " + std::string(leaf.param.dtype) + ", its gradient " + std::string(leaf.grad.dtype);
    for (size_t slot = 0; slot < slots_.size(); ++slot)
      found += ", its " + slots_[slot] + " " + std::string(leaf.state[slot].dtype);
    throw Refusal{Stream::param, leaf.index,
                  found +
                      ": there is no kernel for these together; the gradient should have its parameter's dtype or "
                      "float32, and so should the state",
                  -1, true};
  }
  last_dtypes_ = dtypes;
  return last_layout_ = layout;
}

void TensorStep::take_extents_of(TensorStep& other) {
  written_.insert(written_.end(), other.written_.begin(), other.written_.end());
  read_.insert(read_.end(), other.read_.begin(), other.read_.end());
  other.written_.clear();
  other.read_.clear();
}

void TensorStep::check_overlap() {
  if (!std::is_sorted(written_.begin(), written_.end(), starts_earlier))
    std::sort(written_.begin(), written_.end(), starts_earlier);
  for (size_t i = 1; i < written_.size(); ++i) {
    if (written_[i].begin >= written_[i - 1].end) continue;
    const auto [first, second] = std::minmax(written_[i - 1].leaf, written_[i].leaf);
    throw Refusal{Stream::param, second, "shares memory with {other}; each parameter needs memory of its own", first};
  }
  for (const Written& read : read_) {
    const auto after = std::lower_bound(written_.begin(), written_.end(), Written{read.end, 0, 0}, starts_earlier);
    if (after != written_.begin() && (after - 1)->end > read.begin) {
      throw Refusal{Stream::grad, read.leaf, "shares memory with {other}, which the step overwrites; clone it",
                    (after - 1)->leaf};
    }
  }
}

}  // namespace flatstep
