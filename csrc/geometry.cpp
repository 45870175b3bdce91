// See geometry.h.
#include "geometry.h"

#include <algorithm>
#include <cstdlib>

namespace flatstep {

namespace {

// An axis of an array that is walked upwards in memory: its stride is positive.
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

std::string text(const int64_t* numbers, int count) {
  std::string all = "(";
  for (int i = 0; i < count; ++i) all += (i ? ", " : "") + std::to_string(numbers[i]);
  return all + (count == 1 ? ",)" : ")");
}

int64_t element_count(const Array& array) {
  const int64_t* const end = array.shape + array.axes;
  if (std::find(array.shape, end, 0) != end) return 0;
  int64_t count = 1, bytes;
  for (const int64_t* length = array.shape; length != end; ++length) {
    if (*length < 0 || __builtin_mul_overflow(count, *length, &count)) return -1;
  }
  return __builtin_mul_overflow(count, array.item_bytes, &bytes) ? -1 : count;
}

Written extent(const Array& array, Stream stream, int64_t leaf) {
  auto begin = reinterpret_cast<uintptr_t>(array.data), end = begin;
  bool outside = __builtin_add_overflow(end, array.item_bytes, &end);
  for (int axis = 0; axis < array.axes; ++axis) {
    int64_t reach;
    outside |= __builtin_mul_overflow(array.shape[axis] - 1, array.strides[axis], &reach);
    uintptr_t& edge = reach < 0 ? begin : end;
    outside |= __builtin_add_overflow(edge, reach, &edge);
  }
  outside |= end - begin > uintptr_t(INT64_MAX);
  if (outside) {
    throw Refusal{stream, leaf,
                  "reaches beyond all memory (shape " + text(array.shape, array.axes) + ", strides " +
                      text(array.strides, array.axes) + " bytes); pass an array whose elements exist"};
  }
  return {begin, end, leaf};
}

bool touches(const Array& array, const Written& extent, const Written& written) {
  std::vector<Axis> axes;
  for (int axis = 0; axis < array.axes; ++axis) {
    if (array.shape[axis] > 1 && array.strides[axis] != 0)
      axes.push_back({array.shape[axis], std::abs(array.strides[axis])});
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
  return reaches(axes.data(), axes.data() + axes.size(), int64_t(written.begin - extent.begin) - array.item_bytes + 1,
                 int64_t(written.end - extent.begin) - 1);
}

bool is_aligned(const Array& array) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(array.data);
  for (int axis = 0; axis < array.axes; ++axis) {
    if (array.shape[axis] > 1) bits |= uintptr_t(array.strides[axis]);
  }
  return bits % array.item_bytes == 0;
}

std::vector<int> memory_order(const Array& array) {
  std::vector<int> order;
  for (int axis = 0; axis < array.axes; ++axis) {
    if (array.shape[axis] > 1) order.push_back(axis);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return array.strides[a] > array.strides[b]; });
  return order;
}

bool is_dense(const Array& array, const std::vector<int>& order) {
  int64_t expected = array.item_bytes;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    if (array.strides[*axis] != expected) return false;
    expected *= array.shape[*axis];
  }
  return true;
}

}  // namespace flatstep
