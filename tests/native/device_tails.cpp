// What a device's sweeps do besides updates, on the emulated device: averages of parameters and zeroed gradients have
// the bits of the CPU's, and a step that is skipped writes zeros and nothing else.
#include <deque>
#include <set>

#include "targets.h"
#include "twins.h"

namespace flatstep::testing {

namespace {

using device::Queue;

// Whether no two elements of a strided gradient share memory.
bool is_apart(const Segment& segment) {
  if (!segment.walk) return true;
  std::set<int64_t> places = {0};
  for (int axis = 0; axis < segment.walk->axes; ++axis) {
    std::set<int64_t> finer;
    for (const int64_t place : places) {
      for (int64_t i = 0; i < segment.walk->shape[axis]; ++i) finer.insert(place + i * segment.walk->strides[axis]);
    }
    places = std::move(finer);
  }
  return int64_t(places.size()) == segment.count;
}

// Tensors of one layout with averages of their own, which lie anywhere.
struct Tailed {
  Tailed(int rule, int layout, const std::vector<int64_t>& lengths, uint64_t seed, const Tail& tail, bool all_averaged)
      : layout(layout), tail(tail), streams(rule, layout, lengths, 2, seed) {
    const Dtype param = layouts()[size_t(layout)].param;
    const int bytes = tail.average_in_own_dtype || param == Dtype::float64 ? bytes_of(param) : 4;
    Random random(seed + 1);
    for (Segment segment : streams.segments()) {
      if (segment.grad == segment.param || !is_apart(segment)) continue;
      segment.makes_update = false;
      const auto phase = int64_t(reinterpret_cast<uintptr_t>(segment.param) / size_t(bytes_of(param)) % Stream::phases);
      averages.emplace_back(segment.count, bytes, random.chance(80) ? phase : random.below(Stream::phases))
          .fill(random, true);
      if (all_averaged || random.chance(50)) segment.average = averages.back().data();
      segment.first = segments.empty() ? 0 : segments.back().first + segments.back().count;
      segments.push_back(segment);
    }
  }

  int64_t elements() const { return segments.empty() ? 0 : segments.back().first + segments.back().count; }

  std::vector<std::string> images() const {
    std::vector<std::string> all = streams.images();
    for (const Stream& average : averages) all.push_back(average.image());
    return all;
  }

  int layout;
  Tail tail;
  Streams streams;
  std::deque<Stream> averages;
  std::vector<Segment> segments;
};

void step_there(Queue& queue, const Tailed& there, const std::vector<Scalars>& scalars, const float* skip) {
  const Call call{there.segments.data(), int64_t(there.segments.size()), nullptr, &there.tail};
  const std::vector<Job> jobs = {{there.layout, nullptr, &call, there.elements()}};
  const std::vector<Row> rows = {{0, {}}, {1, {}}};
  queue.prepare({jobs, rows, scalars, {}, skip, nullptr});
  queue.launch();
}

void zero_here(const Tailed& here) {
  const Tail& tail = here.tail;
  for (Segment segment : here.segments) {
    segment.average = nullptr;
    tail.finish(tail, segment, 0, 0, int(segment.count));
  }
}

void tails_are_those_of_the_cpu() {
  Random random(21);
  const Target& baseline = *targets().back();
  for_every_kernel([&](int rule, int layout) {
    const LayoutDescription& formats = layouts()[size_t(layout)];
    for (int list = 0; list < 16; ++list) {
      const bool in_own_dtype = random.chance(50);
      const AverageForm form = random.chance(50) ? AverageForm::interpolated : AverageForm::weighted;
      const Tail tail{baseline.tails[size_t(formats.param)][in_own_dtype],
                      random.chance(70) ? bytes_of(formats.grad) : 0, form,
                      random.pick<double>({0, 0.3, 0.5, 0.9, 0.999}), in_own_dtype};
      const std::vector<int64_t> lengths = random_lengths(random, random.between(1, 8));
      const uint64_t seed = random.bits();
      const bool all_averaged = random.chance(50);
      const Tailed here(rule, layout, lengths, seed, tail, all_averaged);
      const Tailed there(rule, layout, lengths, seed, tail, all_averaged);
      if (here.segments.empty()) continue;
      std::vector<Scalars> scalars(2, some_numbers(rules()[size_t(rule)], random));
      scalars[0].count = 1;
      const Call call{here.segments.data(), int64_t(here.segments.size()), scalars.data(), &here.tail};
      StandIn runtime;
      Queue queue(runtime, StandIn::kernels, rule, 0, &StandIn::shared_kernels);
      float skip = 0;
      for (const float flag : {0.0f, 1.0f, 0.0f}) {
        skip = flag;
        step_there(queue, there, scalars, &skip);
        runtime.synchronize();
        if (flag == 0) {
          const DefaultFloatingPoint mode;
          baseline.kernels[rule][layout](call, 0, here.elements());
        } else if (tail.zeroed_bytes) {
          zero_here(here);
        }
        check(here.images() == there.images(), "a device's averages and zeros are those of the CPU");
        for (Scalars& each : scalars) ++each.count;
      }
    }
  });
}

void a_tail_costs_no_launch() {
  const int rule = find_rule("adam");
  const Tail tail{targets().back()->tails[size_t(Dtype::float32)][0], 4, AverageForm::interpolated, 0.9};
  const Tailed there(rule, 0, {5000, 3, 100}, 5, tail, true);
  const std::vector<Scalars> scalars(2);
  StandIn runtime;
  Queue queue(runtime, StandIn::kernels, rule, 0, &StandIn::shared_kernels);
  const float skip = 0;
  for (const auto& [flag, launches] : {std::pair<const float*, int>{nullptr, 2}, {&skip, 3}}) {
    step_there(queue, there, scalars, flag);
    runtime.synchronize();
    const int before = runtime.launches, copies = runtime.copies;
    step_there(queue, there, scalars, flag);
    check(runtime.launches - before == launches, "only a step that may be skipped has a launch for its zeros");
    check(runtime.copies == copies, "and nothing is sent twice");
    runtime.synchronize();
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts(
      {{"tails are those of the CPU", tails_are_those_of_the_cpu}, {"a tail costs no launch", a_tail_costs_no_launch}});
}
