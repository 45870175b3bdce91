// See tensor.h.
#include "tensor.h"

#include <algorithm>
#include <cstdlib>

namespace flatstep {

namespace {

// An axis that is walked upwards in memory: its stride, in bytes, is positive.
struct Axis {
  int64_t length, stride;
};

// Whether a sum of one multiple i * stride, 0 <= i < length, of each axis lies in first..last. Where the axes do not
// overlap, this looks at two multiples of each at most.
bool reaches(const Axis* axis, const Axis* end, int64_t first, int64_t last) {
  int64_t rest = 0;  // the largest sum of the axes after this one
  for (const Axis* inner = axis; inner != end; ++inner) rest += (inner->length - 1) * inner->stride;
  if (last < 0 || first > rest) return false;
  if (first <= 0 || last >= rest) return true;
  rest -= (axis->length - 1) * axis->stride;
  int64_t i = first > rest ? (first - rest + axis->stride - 1) / axis->stride : 0;
  for (; i < axis->length && i * axis->stride <= last; ++i) {
    if (reaches(axis + 1, end, first - i * axis->stride, last - i * axis->stride)) return true;
  }
  return false;
}

}  // namespace

std::string text_of(const int64_t* numbers, int count) {
  std::string all = "(";
  for (int i = 0; i < count; ++i) all += (i ? ", " : "") + std::to_string(numbers[i]);
  return all + (count == 1 ? ",)" : ")");
}

std::string shape_of(const Tensor& tensor) { return text_of(tensor.shape, tensor.ndim); }

std::string dtype_of(const Tensor& tensor) {
  return tensor.dtype == Dtype::other && tensor.dtype_name ? tensor.dtype_name : std::string(name_of(tensor.dtype));
}

int64_t element_count(const Tensor& tensor) {
  const int64_t* const end = tensor.shape + tensor.ndim;
  if (std::find(tensor.shape, end, 0) != end) return 0;
  int64_t count = 1, bytes;
  for (const int64_t* length = tensor.shape; length != end; ++length) {
    if (*length < 0 || __builtin_mul_overflow(count, *length, &count)) return -1;
  }
  return __builtin_mul_overflow(count, bytes_of(tensor.dtype), &bytes) ? -1 : count;
}

bool is_contiguous(const Tensor& tensor) {
  int64_t expected = 1;
  for (int axis = tensor.ndim; axis-- > 0; expected *= tensor.shape[axis]) {
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != expected) return false;
  }
  return true;
}

bool is_dense(const Tensor& tensor) {
  if (is_contiguous(tensor)) return true;  // needs no sorting
  const std::vector<int> order = memory_order(tensor);
  int64_t expected = 1;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    if (tensor.strides[*axis] != expected) return false;
    expected *= tensor.shape[*axis];
  }
  return true;
}

// Item sizes are powers of two; a division by one would take longer than all other checks.
bool is_aligned(const Tensor& tensor) {
  return (reinterpret_cast<uintptr_t>(tensor.data) & uintptr_t(bytes_of(tensor.dtype) - 1)) == 0;
}

bool has_repeats(const Tensor& tensor) {
  std::vector<Axis> axes;
  for (int axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.shape[axis] > 1) axes.push_back({tensor.shape[axis], std::abs(tensor.strides[axis])});
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  int64_t reach = 0;  // from the first to the last element of what is inside
  for (const Axis& axis : axes) {
    if (axis.stride <= reach) return true;
    reach += (axis.length - 1) * axis.stride;
  }
  return false;
}

bool have_same_shape(const Tensor& a, const Tensor& b) {
  return a.ndim == b.ndim && (a.shape == b.shape || std::equal(a.shape, a.shape + a.ndim, b.shape));
}

bool have_same_strides(const Tensor& a, const Tensor& b) {
  if (a.strides == b.strides) return true;
  for (int axis = 0; axis < a.ndim; ++axis) {
    if (a.shape[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
  }
  return true;
}

bool is_same_memory(const Tensor& a, const Tensor& b) {
  return a.data == b.data && a.device == b.device && a.dtype == b.dtype && a.read_only == b.read_only &&
         have_same_shape(a, b) && std::equal(a.strides, a.strides + a.ndim, b.strides);
}

std::vector<int> memory_order(const Tensor& tensor) {
  std::vector<int> order;
  for (int axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.shape[axis] > 1) order.push_back(axis);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return tensor.strides[a] > tensor.strides[b]; });
  return order;
}

bool find_extent(const Tensor& tensor, Extent& extent) {
  const int64_t item_bytes = bytes_of(tensor.dtype);
  auto begin = reinterpret_cast<uintptr_t>(tensor.data), end = begin;
  bool is_outside = __builtin_add_overflow(end, item_bytes, &end);
  for (int axis = 0; axis < tensor.ndim; ++axis) {
    int64_t reach;
    is_outside |= __builtin_mul_overflow(tensor.shape[axis] - 1, tensor.strides[axis], &reach);
    is_outside |= __builtin_mul_overflow(reach, item_bytes, &reach);
    uintptr_t& edge = reach < 0 ? begin : end;
    is_outside |= __builtin_add_overflow(edge, reach, &edge);
  }
  extent.begin = begin;
  extent.end = end;
  return !is_outside && end - begin <= uintptr_t(INT64_MAX);
}

bool touches(const Tensor& tensor, const Extent& extent, const Extent& other) {
  const int64_t item_bytes = bytes_of(tensor.dtype);
  std::vector<Axis> axes;
  for (int axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != 0)
      axes.push_back({tensor.shape[axis], std::abs(tensor.strides[axis]) * item_bytes});
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
  return reaches(axes.data(), axes.data() + axes.size(), int64_t(other.begin - extent.begin) - item_bytes + 1,
                 int64_t(other.end - extent.begin) - 1);
}

bool may_share(const Tensor& a, const Extent& of_a, const Tensor& b, const Extent& of_b) {
  if (a.ndim != b.ndim || a.dtype != b.dtype) return true;
  const int64_t item_bytes = bytes_of(a.dtype);
  std::vector<Axis> axes;
  int64_t distance = int64_t(of_b.begin - of_a.begin);
  for (int axis = 0; axis < a.ndim; ++axis) {
    if (a.shape[axis] == 1 && b.shape[axis] == 1) continue;
    if (std::abs(a.strides[axis]) != std::abs(b.strides[axis]) || a.strides[axis] == 0) return true;
    const int64_t stride = std::abs(a.strides[axis]) * item_bytes;
    axes.push_back({a.shape[axis] + b.shape[axis] - 1, stride});  // differences of two indices
    distance += (b.shape[axis] - 1) * stride;
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& x, const Axis& y) { return x.stride > y.stride; });
  return reaches(axes.data(), axes.data() + axes.size(), distance - item_bytes + 1, distance + item_bytes - 1);
}

OwnedWalk::OwnedWalk(const Tensor& tensor, const std::vector<int>& axes) {
  for (const int axis : axes) {
    const int64_t length = tensor.shape[axis], stride = tensor.strides[axis];
    if (!shape.empty() && strides.back() == stride * length) {  // continues the outer axis
      shape.back() *= length;
      strides.back() = stride;
    } else {
      shape.push_back(length);
      strides.push_back(stride);
    }
  }
  walk = {int(shape.size()), shape.data(), strides.data()};
}

}  // namespace flatstep
