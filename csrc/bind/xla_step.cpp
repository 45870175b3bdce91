// The extension module flatstep._xla: one XLA FFI handler for all rules and layouts, and those of norms.
#include <cstring>
#include <exception>
#include <utility>

#include "core_api.h"
#include "read_xla.h"
#include "work.h"
#include "xla_norm.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;
namespace nb = nanobind;

const CoreAPI* core;

ffi::Error step(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                const XlaAttributes& attributes) {
  const DefaultFloatingPoint mode;  // XLA's takes a small learning rate for zero
  try {
    XlaStep step(attributes, args, rets, &std::memcpy);
    core->run_on(step.jobs(core->chosen_target()), int(pool.num_threads()),
                 [&](std::function<void()> task) { pool.Schedule(std::move(task)); });
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(handler, step,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attrs<XlaAttributes>());

}  // namespace

}  // namespace flatstep

NB_MODULE(_xla, module) {
  namespace nb = nanobind;
  module.doc() = "flatstep's step for XLA. Use flatstep.jax.";
  flatstep::core = &flatstep::import_core_api();
  flatstep::set_core_of_norms(*flatstep::core);
  module.attr("version") = FLATSTEP_VERSION;
  // The interface that this was built for: (major, minor).
  module.attr("api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
  const auto capsule = [](XLA_FFI_Handler* handler) { return nb::capsule(reinterpret_cast<void*>(handler)); };
  module.attr("handler") = capsule(flatstep::handler);
  module.attr("square_sums") = capsule(flatstep::xla_square_sums);
  module.attr("add_sums") = capsule(flatstep::xla_add_sums);
  module.attr("limits") = capsule(flatstep::xla_limits);
}
