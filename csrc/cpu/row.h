// A rule's row in the table of a target: its kernel on each layout. Defined in the rule's own object (rule.cpp.in).
#pragma once

#include "../call.h"
#include "../formats/layouts.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

template <class R, class AllLayouts = Layouts>
struct Row;
template <class R, class... L>
struct Row<R, List<L...>> {
  static const Kernel kernels[sizeof...(L)];
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
