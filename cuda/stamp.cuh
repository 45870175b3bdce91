// The catalogue as a table of launches; who launches is the includer's business: it has defined load<R, L>,
// launch_preparation<R, T> and launch_sweep<R, L>. Included by target.cu, and by the tests' stand-in for a device.
#pragma once

#include "catalog.h"
#include "kernels.h"
#include "quads.cuh"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class R, class L>
constexpr device::Kernel kernel() {
  if constexpr (fits<R, L>) {
    using T = typename L::Compute;
    using Row = PaddedRow<typename R::template Coefficients<T>>;
    return {&load<R, L>, &launch_preparation<R, T>, &launch_sweep<R, L>, sizeof(Row),
            device::tile_elements(sizeof(typename L::Param::Storage))};
  } else {
    return {};
  }
}

template <class R, class AllLayouts>
struct KernelRow;
template <class R, class... L>
struct KernelRow<R, List<L...>> {
  static constexpr device::Kernel kernels[] = {kernel<R, L>()...};
};

template <class AllRules>
struct Table;
template <class... R>
struct Table<List<R...>> {
  static constexpr const device::Kernel* rows[] = {KernelRow<R, Layouts>::kernels...};
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
