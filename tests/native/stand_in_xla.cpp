// The stand-in for a device as XLA calls it, for the Python tests (tests/helpers/stand_in.py): XLA's memory is the
// processor's, and what is launched is done at once.
#include <cstring>
#include <mutex>

#include "stand_in.h"
#include "work.h"
#include "xla_batch.h"

namespace {

namespace ffi = xla::ffi;
using flatstep::testing::StandIn;

StandIn& stand_in() {
  static StandIn device;
  device.is_lazy = false;
  return device;
}

std::mutex one_at_a_time;

ffi::Error step(ffi::RemainingArgs args, ffi::RemainingRets rets, const flatstep::XlaAttributes& attributes) {
  const std::lock_guard lock(one_at_a_time);
  const flatstep::DefaultFloatingPoint mode;  // a device has no other
  try {
    const flatstep::device::XlaDevice device{stand_in(), StandIn::kernels, StandIn::lay_out, 0};
    flatstep::XlaStep step(attributes, args, rets, &std::memcpy, true);
    flatstep::device::carry_out(device, step, nullptr);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInternal, error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(handler, step,
                       ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs<flatstep::XlaAttributes>());

}  // namespace

#define FLATSTEP_EXPORT extern "C" __attribute__((visibility("default")))

FLATSTEP_EXPORT const void* stand_in_xla_handler() { return reinterpret_cast<const void*>(handler); }
FLATSTEP_EXPORT void stand_in_xla_fail_launches(int yes) { stand_in().fails_launches = yes != 0; }
FLATSTEP_EXPORT int stand_in_xla_launches() { return stand_in().launches; }

// The formats: of what is written, of gradients, of each slot.
FLATSTEP_EXPORT int64_t stand_in_xla_workspace_bytes(const char* rule, const char* const* formats, int format_count,
                                                     const int64_t* counts, int leaves, int64_t entries) {
  return flatstep::device::xla_workspace_bytes(StandIn::kernels, rule, formats[0], formats[1],
                                               {formats + 2, formats + format_count}, {counts, counts + leaves},
                                               entries);
}
