// Shows Python how fast a step's bytes move when there is nothing to compute: the yardstick of benchmarks.
#include "bind.h"

namespace flatstep {

namespace {

// param and grad, then one array a slot, of 4-byte words and one length. All but grad are overwritten with rubbish.
void move_streams(nb::list arrays, bool prefetch, bool on_openmp) {
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < arrays.size(); ++i) buffers.emplace_back(arrays[i], Stream::param, int64_t(i));
  const size_t slots = arrays.size() - 2;
  if (arrays.size() < 2 || slots > max_slots) throw nb::value_error("expected param, grad and up to 4 slots");
  Segment segment{};
  segment.count = buffers[0].array().axes == 1 ? buffers[0].array().shape[0] : -1;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const Array array = buffers[i].array();
    if (array.axes != 1 || array.shape[0] != segment.count || array.item_bytes != 4 || array.strides[0] != 4 ||
        (array.read_only && i != 1))
      throw nb::value_error("expected dense, writable, one-dimensional arrays of 4-byte numbers and one length");
    if (i == 0) segment.param = array.data;
    if (i == 1) segment.grad = array.data;
    if (i >= 2) segment.state[i - 2] = array.data;
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
