// See hostile_tensors.h.
#include "hostile_tensors.h"

#include <algorithm>
#include <numeric>

namespace flatstep::testing {

namespace {

constexpr int64_t most_elements = 1200;  // some tiles, and more than kernels look ahead
constexpr int64_t huge = int64_t{1} << 62;
constexpr Wide all_memory = Wide{1} << 64;

Dtype random_dtype(Random& random, bool known) { return known ? random.pick(layouts()).param : Dtype::other; }

std::vector<int64_t> random_shape(Random& random) {
  const int64_t axes = random.chance(5) ? random.between(5, 40) : random.pick<int64_t>({0, 1, 1, 1, 2, 2, 3, 4});
  std::vector<int64_t> shape;
  int64_t left = most_elements;
  for (int64_t axis = 0; axis < axes; ++axis) {
    const int64_t longest = random.pick<int64_t>({1, 2, 3, 5, 17, 70, most_elements});
    shape.push_back(random.between(1, std::min(longest, left)));
    left /= shape.back();
  }
  if (axes && random.chance(4)) {
    shape[size_t(random.below(axes))] = 0;
    if (random.chance(30)) shape[size_t(random.below(axes))] = huge;  // empty or far too long
  }
  return shape;
}

// Strides of a dense array with its axes in some order in memory.
std::vector<int64_t> dense_strides(Random& random, const std::vector<int64_t>& shape) {
  std::vector<size_t> order(shape.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (random.chance(50)) std::reverse(order.begin(), order.end());
  if (random.chance(30)) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(random.below(int64_t(i)))]);
  }
  std::vector<int64_t> strides(shape.size());
  uint64_t stride = 1;  // may wrap: an empty array's strides mean nothing
  for (const size_t axis : order) {
    strides[axis] = int64_t(stride);
    stride *= uint64_t(std::max(shape[axis], int64_t{1}));
  }
  for (size_t axis = 0; axis < shape.size(); ++axis) {  // nor does the stride of a single element
    if (shape[axis] == 1 && random.chance(30)) strides[axis] = random.pick<int64_t>({0, -1, 3, huge, INT64_MIN});
  }
  return strides;
}

// How elements may lie wrongly, or for a gradient strangely.
void bend(Random& random, Description& array) {
  if (array.shape.empty()) return;
  const auto axis = size_t(random.below(int64_t(array.shape.size())));
  int64_t& stride = array.strides[axis];
  switch (random.below(8)) {
    case 0: stride = 0; break;
    case 1: stride = stride == INT64_MIN ? 0 : -stride; break;
    case 2: stride = random.pick<int64_t>({huge, -huge, INT64_MAX, INT64_MIN, INT64_MAX / 4 * 4}); break;
    case 3: array.shape[axis] = random.pick<int64_t>({huge, huge, -1}); break;
    case 4: stride = random.between(-40, 40); break;
    case 5: stride = random.between(-10, 10); break;
    default:  // every so many elements of a larger array
      for (int64_t& each : array.strides) each = int64_t(uint64_t(each) * 3);
  }
}

bool is_empty(const Description& array) {
  return std::find(array.shape.begin(), array.shape.end(), 0) != array.shape.end();
}

// Puts an array somewhere in the room. False where it does not fit in, and yet might exist elsewhere.
bool place(Random& random, Description& array, const Room& room) {
  array.data = room.begin;
  if (is_empty(array)) {
    array.data += random.below(room.bytes);
    return true;
  }
  const auto [begin, end] = extent_of(array);
  const Wide free = room.bytes - (end - begin);
  if (free < 0) return begin < 0 || end > all_memory;
  array.data = room.begin + int64_t(reinterpret_cast<uintptr_t>(room.begin) - begin);
  if (random.chance(20)) return true;  // at the very beginning
  if (random.chance(20)) {             // at the very end
    array.data += int64_t(free);
    return true;
  }
  const int step = random.chance(50) ? cache_line : random.chance(95) ? array.item_bytes() : 1;
  array.data += random.below(int64_t(free) + 1) / step * step;
  return true;
}

}  // namespace

Description random_param(Random& random, const Room& room) {
  const Dtype dtype = random_dtype(random, !random.chance(3));
  while (true) {
    Description param{nullptr, dtype, random_shape(random), {}, random.chance(2)};
    param.strides = dense_strides(random, param.shape);
    if (random.chance(10)) bend(random, param);
    if (place(random, param, room)) return param;
  }
}

Description random_grad(Random& random, const Room& room, const Description& param) {
  while (true) {
    Description grad = param;
    grad.read_only = random.chance(50);
    if (random.chance(3)) grad.dtype = random_dtype(random, random.chance(50));
    if (random.chance(3)) grad.shape = random_shape(random);
    if (random.chance(60) || grad.shape != param.shape) grad.strides = dense_strides(random, grad.shape);
    for (int bends = int(random.below(4)) - 1; bends > 0; --bends) bend(random, grad);
    if (place(random, grad, room)) return grad;
  }
}

std::optional<Description> spread_grad(Random& random, const Description& param, const Range& middle,
                                       const Room& room) {
  if (is_empty(param) || param.shape.empty()) return std::nullopt;
  Description grad = param;
  const auto axis = size_t(random.below(int64_t(param.shape.size())));
  grad.shape[axis] = 1;
  const auto [begin, end] = extent_of(grad);  // of what stays together
  const int64_t item = param.item_bytes(), jitter = random.between(-1, 1) * item;
  const auto stride = int64_t(end - begin + (middle.end - middle.begin) / item * item) + jitter;
  grad.shape[axis] = param.shape[axis];
  grad.strides[axis] = stride / item;
  const int64_t before = random.below(param.shape[axis]) * stride, start = random.between(0, 1) * jitter - before;
  const Wide first = middle.begin - (end - begin) + start - Wide(reinterpret_cast<uintptr_t>(room.begin));
  if (first < 0 || first + stride * (param.shape[axis] - 1) + (end - begin) > room.bytes) return std::nullopt;
  grad.data = room.begin + int64_t(first);
  return grad;
}

std::optional<std::vector<Wide>> addresses(const Description& array) {
  if (is_empty(array)) return std::vector<Wide>();
  std::vector<Wide> all = {Wide(reinterpret_cast<uintptr_t>(array.data))};
  for (size_t axis = 0; axis < array.shape.size(); ++axis) {
    if (array.shape[axis] < 0 || Wide(all.size()) * array.shape[axis] > most_elements) return std::nullopt;
    std::vector<Wide> next;
    for (const Wide address : all) {
      for (int64_t i = 0; i < array.shape[axis]; ++i)
        next.push_back(address + Wide(i) * array.strides[axis] * array.item_bytes());
    }
    all = std::move(next);
  }
  return all;
}

Range extent_of(const Description& array) {
  Range extent{Wide(reinterpret_cast<uintptr_t>(array.data)), Wide(reinterpret_cast<uintptr_t>(array.data))};
  if (is_empty(array)) return extent;
  extent.end += array.item_bytes();
  for (size_t axis = 0; axis < array.shape.size(); ++axis) {
    constexpr Wide far = Wide{1} << 100;  // beyond all memory; a product with it still fits
    const Wide steps = Wide(array.shape[axis] - 1) * array.strides[axis];
    const Wide reach = std::clamp(steps, -far, far) * array.item_bytes();
    (reach < 0 ? extent.begin : extent.end) += reach;
  }
  return extent;
}

bool is_good_param(const Description& param, int rule, std::optional<Dtype> first_moment) {
  const int layout = find_layout(param.dtype, param.dtype, first_moment.value_or(param.dtype));
  if (layout < 0 || !has_kernel(rule, layout)) return false;
  if (param.read_only) return false;
  auto all = addresses(param);
  if (!all) return false;
  for (size_t axis = 0; axis < param.shape.size(); ++axis) {
    if (param.shape[axis] > 1 && param.strides[axis] < 0 && !all->empty()) return false;
  }
  std::sort(all->begin(), all->end());
  for (size_t i = 0; i < all->size(); ++i) {
    if ((*all)[i] % param.item_bytes() != 0 || (*all)[i] != (*all)[0] + Wide(i) * param.item_bytes()) return false;
  }
  return true;
}

bool is_good_grad(const Description& grad, const Description& param, const std::vector<Range>& written) {
  if (grad.dtype != param.dtype || grad.shape != param.shape) return false;
  const auto all = addresses(grad);
  if (!all) return false;
  if (all->empty()) return true;
  for (const Wide address : *all) {
    const Range element{address, address + grad.item_bytes()};
    if (address % grad.item_bytes() != 0 || address < 0 || element.end > all_memory) return false;
    for (const Range& other : written) {
      if (element.overlaps(other)) return false;
    }
  }
  return true;
}

}  // namespace flatstep::testing
