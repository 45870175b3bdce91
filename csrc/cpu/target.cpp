// One CPU target: every kernel of the catalogue. Compiled once per instruction set, each time with its own flags and
// its own FLATSTEP_NAMESPACE (see CMakeLists.txt).
#include "../catalog.h"
#include "sweep.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class R, class Layouts>
struct Row;
template <class R, class... L>
struct Row<R, List<L...>> {
  static constexpr Kernel kernels[] = {&sweep<R, L>...};
};

template <class Rules>
struct Table;
template <class... R>
struct Table<List<R...>> {
  static constexpr const Kernel* rows[] = {Row<R, Layouts>::kernels...};
};

#define FLATSTEP_QUOTE_(name) #name
#define FLATSTEP_QUOTE(name) FLATSTEP_QUOTE_(name)
extern const Target target;
const Target target = {FLATSTEP_QUOTE(FLATSTEP_NAMESPACE), Table<Rules>::rows};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
