// Shows Python how fast a step's bytes move when there is nothing to compute: the yardstick of benchmarks.
#include "bind.h"
#include "work.h"
#include "read_array.h"
#include "targets.h"

namespace flatstep {

namespace {

// param and grad, then one array a slot, of float32 and one length. All but grad are overwritten with rubbish.
void move_streams(nb::list arrays, bool prefetch, bool on_openmp) {
  const size_t slots = arrays.size() - 2;
  if (arrays.size() < 2 || slots > max_slots) throw nb::value_error("expected param, grad and up to 4 slots");
  std::vector<ArrayView> views;
  for (size_t i = 0; i < arrays.size(); ++i) views.emplace_back(arrays[i], Operand::param, int64_t(i));
  Segment segment{};
  for (size_t i = 0; i < views.size(); ++i) {
    const Tensor tensor = views[i].tensor();
    if (i == 0) segment.count = element_count(tensor);
    if (tensor.ndim != 1 || tensor.shape[0] != segment.count || tensor.dtype != Dtype::float32 ||
        !is_contiguous(tensor) || (tensor.read_only && i != 1))
      throw nb::value_error("expected dense, writable, one-dimensional arrays of float32 and one length");
    if (i == 0) segment.param = tensor.data;
    if (i == 1) segment.grad = tensor.data;
    if (i >= 2) segment.state[i - 2] = tensor.data;
  }
  const Call call{&segment, 1, nullptr};
  const Job job{-1, chosen_target().limits[slots][prefetch], &call, segment.count};
  const nb::gil_scoped_release unlocked;
  run(&job, 1, on_openmp ? Team::openmp : Team::own);
}

}  // namespace

void bind_limit(nb::module_& module) {
  module.def("move_streams", &move_streams, nb::arg("arrays"), nb::arg("prefetch"), nb::arg("on_openmp") = false,
             nb::sig("def move_streams(arrays: list[typing.Any], prefetch: bool, on_openmp: bool = False) -> None"));
}

}  // namespace flatstep
