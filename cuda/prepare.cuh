// Numbers -> coefficients, on the device: one thread a row. Counts are moved here, once for all, since a sweep could
// not move what its other blocks still read. Included by target.cu, and by the tests' stand-in for a device.
#pragma once

#include <utility>  // std::integer_sequence

#include "catalog.h"
#include "quads.cuh"
#include "segments.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

FLATSTEP_FN double read(const DeviceNumber& number) {
  switch (number.kind) {
    case NumberKind::float32: return *static_cast<const float*>(number.data);
    case NumberKind::float64: return *static_cast<const double*>(number.data);
    case NumberKind::int32: return *static_cast<const int32_t*>(number.data);
    case NumberKind::int64: break;
  }
  return double(*static_cast<const int64_t*>(number.data));
}

FLATSTEP_FN void write(const DeviceNumber& number, double value) {
  switch (number.kind) {
    case NumberKind::float32: *static_cast<float*>(number.data) = float(value); return;
    case NumberKind::float64: *static_cast<double*>(number.data) = value; return;
    case NumberKind::int32: *static_cast<int32_t*>(number.data) = int32_t(value); return;
    case NumberKind::int64: *static_cast<int64_t*>(number.data) = int64_t(value); return;
  }
}

// Replaces the number that has this index (see Traced). Without an array that is indexed by what is not known when this
// is compiled, which would lie in local memory.
FLATSTEP_FN void replace(Scalars& scalars, int32_t number, double value) {
  [&]<int... K>(std::integer_sequence<int, K...>) {
    ((K == number ? void(scalars.*common_scalars[K].member = value) : void()), ...);
  }(std::make_integer_sequence<int, scalar_count>());
#pragma unroll
  for (int k = 0; k < max_hyperparameters; ++k) {
    if (scalar_count + k == number) scalars.hyperparameters[k] = value;
  }
}

// The first of the numbers that replace some of these scalars', or of later ones': they are in the order of scalars.
FLATSTEP_FN int64_t first_traced(const device::Preparation& p, int64_t scalars) {
  int64_t first = 0, end = p.traced_count;
#pragma unroll 1
  while (first < end) {
    const int64_t middle = (first + end) / 2;
    if (p.traced[middle].scalars < scalars) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return first;
}

// What one thread does for its row.
template <Rule R, class T>
FLATSTEP_FN void prepare_row(const device::Preparation& p, int64_t index) {
  if (index >= p.row_count || (p.skip && *p.skip != 0)) return;
  const device::Row row = p.rows[index];
  Scalars scalars = p.scalars[row.scalars];
  if (row.count.data) {
    const double count = read(row.count) + double(row.moves_count);
    if (row.moves_count) write(row.count, count);
    scalars.count = int64_t(count);
    scalars.is_initial_step = scalars.count == 1;
  }
  for (int64_t i = first_traced(p, row.scalars); i < p.traced_count; ++i) {
    const Traced traced = p.traced[i];
    if (traced.scalars != row.scalars) break;
    const double value = read(traced.value);
    replace(scalars, traced.number, traced.is_inverted ? 1 / value : value);
  }
  if (p.factor) scalars.grad_scale *= *p.factor;
  if (p.updates) p.updates[index] = scalars.count;
  store_row(p.coefficients, index, R::template prepare<T>(scalars));
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
