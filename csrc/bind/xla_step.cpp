// The extension module flatstep._xla: one XLA FFI handler for all rules and layouts.
#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "floating_point.h"
#include "lending.h"
#include "read_xla.h"
#include "shift.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;
namespace nb = nanobind;

const Loan* core;

// On XLA's own threads, the caller among them.
void carry_out(const std::vector<Job>& jobs, ffi::ThreadPool& pool) {
  const auto lent = std::max(1, int(pool.num_threads()));
  const int chosen = core->chosen_threads();
  carry_out(jobs.data(), int64_t(jobs.size()), chosen > 0 ? std::min(chosen, lent) : lent,
            [&](auto&& task) { pool.Schedule(std::forward<decltype(task)>(task)); });
}

ffi::Error step(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view rule,
                bool makes_update, ffi::Span<const double> numbers, ffi::Span<const int32_t> traced) {
  const DefaultFloatingPoint mode;  // XLA's takes a small learning rate for zero
  try {
    XlaStep step({rule, makes_update, numbers, traced}, args, rets, &std::memcpy);
    carry_out(step.jobs(core->chosen_target()), pool);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(handler, step,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attr<std::string_view>("rule")
                           .Attr<bool>("makes_update")
                           .Attr<ffi::Span<const double>>("numbers")
                           .Attr<ffi::Span<const int32_t>>("traced"));

}  // namespace

}  // namespace flatstep

NB_MODULE(_xla, module) {
  namespace nb = nanobind;
  module.doc() = "flatstep's step for XLA. Use flatstep.jax.";
  flatstep::core = &flatstep::borrow();
  module.attr("version") = FLATSTEP_VERSION;
  // The interface that this was built for: (major, minor).
  module.attr("api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  module.attr("handler") = nb::capsule(reinterpret_cast<void*>(flatstep::handler));
}
