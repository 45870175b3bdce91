// One CPU target: the table of its kernels, which the objects of the rules hold. Compiled once per instruction set,
// each time with its own flags and its own FLATSTEP_NAMESPACE (see CMakeLists.txt).
#include "../catalog.h"
#include "limit.h"
#include "norm.h"
#include "row.h"
#include "sweep.h"
#include "tail.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class AllRules>
struct Table;
template <class... R>
struct Table<List<R...>> {
  static constexpr const Kernel* rows[] = {Row<R>::kernels...};
};

constexpr Kernel limits[][2] = {
    {&move_streams<0, 0>, &move_streams<0, prefetch_ahead>}, {&move_streams<1, 0>, &move_streams<1, prefetch_ahead>},
    {&move_streams<2, 0>, &move_streams<2, prefetch_ahead>}, {&move_streams<3, 0>, &move_streams<3, prefetch_ahead>},
    {&move_streams<4, 0>, &move_streams<4, prefetch_ahead>}, {&move_streams<5, 0>, &move_streams<5, prefetch_ahead>}};
static_assert(sizeof limits / sizeof *limits == max_slots + 1);

template <NormKind kind>
struct Norms {
  static constexpr Kernel kernels[] = {&find_norms<F16, kind>, &find_norms<BF16, kind>, &find_norms<F32, kind>,
                                       &find_norms<F64, kind>};
};
constexpr const Kernel* norms[] = {Norms<NormKind::two>::kernels, Norms<NormKind::largest>::kernels};

constexpr FinishTile tails[][2] = {{&finish_tile<F16, F32>, &finish_tile<F16, F16>},
                                   {&finish_tile<BF16, F32>, &finish_tile<BF16, BF16>},
                                   {&finish_tile<F32, F32>, &finish_tile<F32, F32>},
                                   {&finish_tile<F64, F64>, &finish_tile<F64, F64>}};

#define FLATSTEP_QUOTE_(name) #name
#define FLATSTEP_QUOTE(name) FLATSTEP_QUOTE_(name)
extern const Target target;
const Target target = {FLATSTEP_QUOTE(FLATSTEP_NAMESPACE), Table<Rules>::rows, limits, norms, tails};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
