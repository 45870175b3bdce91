// The stand-in for a device behind plain C functions, for the Python tests (tests/helpers/stand_in.py): its memory is
// the processor's, and what it is given is done at once.
#include "queue.h"
#include "stand_in.h"

namespace {

using flatstep::testing::StandIn;

constexpr int32_t dlpack_cpu = 1, dlpack_cuda = 2;

struct AtOnce : StandIn {
  AtOnce() { is_lazy = false; }
};

StandIn& stand_in() {
  static AtOnce device;
  return device;
}

std::unique_ptr<flatstep::DeviceQueue> make_queue(int rule, int index) {
  return std::make_unique<flatstep::device::Queue>(stand_in(), StandIn::kernels, rule, index, &StandIn::shared_kernels);
}

void* enter(int index) { return stand_in().make_current(index); }
void leave(void* before) { stand_in().restore(before); }

StandIn::Graph graph;

constexpr flatstep::DeviceBackend backend = {dlpack_cpu, &make_queue, &enter, &leave},
                                  cuda_backend = {dlpack_cuda, &make_queue, &enter, &leave};

}  // namespace

#define FLATSTEP_EXPORT extern "C" __attribute__((visibility("default")))

FLATSTEP_EXPORT const void* stand_in_backend() { return &backend; }
FLATSTEP_EXPORT const void* stand_in_cuda_backend() { return &cuda_backend; }
FLATSTEP_EXPORT void stand_in_use(int device, void* stream) { stand_in().use(device, stream); }
FLATSTEP_EXPORT int stand_in_current_device() { return stand_in().current_device(); }
FLATSTEP_EXPORT void stand_in_begin_capture() { stand_in().begin_capture(); }
FLATSTEP_EXPORT void stand_in_end_capture() { graph = stand_in().end_capture(); }
FLATSTEP_EXPORT void stand_in_drop_graph() { graph = {}; }
FLATSTEP_EXPORT void stand_in_replay() {
  stand_in().replay(graph);
  stand_in().synchronize();
}
FLATSTEP_EXPORT void stand_in_fail_after(int calls) { stand_in().fails_after = calls; }
FLATSTEP_EXPORT void stand_in_fail_times(int calls) { stand_in().failures = calls; }
FLATSTEP_EXPORT int stand_in_is_capturing() { return stand_in().is_capturing(nullptr); }
FLATSTEP_EXPORT void stand_in_fail_launches(int yes) { stand_in().fails_launches = yes != 0; }
FLATSTEP_EXPORT void stand_in_fail_loads(int yes) { stand_in().fails_loads = yes != 0; }
FLATSTEP_EXPORT void* stand_in_make_stream(int device) { return stand_in().make_stream(device); }
FLATSTEP_EXPORT void* stand_in_last_stream() { return stand_in().last_stream; }
FLATSTEP_EXPORT void stand_in_be_lazy(int yes) { stand_in().is_lazy = yes != 0; }
FLATSTEP_EXPORT void stand_in_run(void* stream, void (*kernel)()) {
  stand_in().use(0, stream);
  stand_in().run(kernel);
  stand_in().use(0);
}
FLATSTEP_EXPORT void stand_in_synchronize() { stand_in().synchronize(); }
FLATSTEP_EXPORT int stand_in_launches() { return stand_in().launches; }
FLATSTEP_EXPORT int stand_in_copies() { return stand_in().copies; }
FLATSTEP_EXPORT int stand_in_allocations() { return stand_in().allocations; }
FLATSTEP_EXPORT int stand_in_memory() { return int(stand_in().bytes_in_use()); }
FLATSTEP_EXPORT int stand_in_waits() { return stand_in().waits; }
