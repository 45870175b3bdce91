// Norms of gradients on the emulated device: the bits of the CPU's, in three launches, and what steps make of them.
#include <cmath>
#include <deque>
#include <limits>

#include "norm.h"
#include "twins.h"

namespace flatstep::testing {

namespace {

using device::Queue;

constexpr int64_t group = int64_t(device::norm_threads) * device::unit_elements;
const std::vector<int64_t> lengths = {1,    15,      16, 17,     1023, 1024,      1025, 16'384, 16'385,
                                      5000, 200'000, 7,  40'000, 3,    group + 1, 2,    1};

// Gradients of all dtypes, one after the other, every third one strided, all somewhere in their memory.
struct Gradients {
  explicit Gradients(uint64_t seed, bool with_large = true) : random(seed) {
    for (const int64_t& length : lengths) {
      if (length > group && !with_large) continue;
      const auto dtype = Dtype(tensors.size() % size_t(Dtype::other));
      const int64_t& stride = tensors.size() % 3 == 2 ? two : one;
      streams.emplace_back((length - 1) * stride + 1, bytes_of(dtype), random.below(Stream::phases)).fill(random, true);
      tensors.push_back({streams.back().data(), &length, &stride, 1, dtype, true, {}, nullptr});
    }
  }

  void add_to(GradientNorm& norm) const {
    norm.begin();
    for (size_t i = 0; i < tensors.size(); ++i) norm.add(tensors[i], i % 2 == 0 ? 0.75 : 1.5);
  }

  static constexpr int64_t one = 1, two = 2;
  Random random;
  std::deque<Stream> streams;
  std::vector<Tensor> tensors;
};

struct Watched {
  explicit Watched(StandIn& runtime)
      : queue(runtime, StandIn::kernels, find_rule("adam"), 1, &StandIn::shared_kernels) {
    runtime.use(1);
  }
  Queue queue;
};

struct Asked {
  NormKind kind = NormKind::two;
  std::optional<double> max_norm = {};
  bool skips = false;
  ClipFormula formula = ClipFormula::optax;
  const float* skip = nullptr;
};

void launch_norm(Queue& queue, StandIn& runtime, const GradientNorm& norm, const Asked& asked, FoundNorm& found) {
  const NormWork work{norm.pieces(),
                      norm.scalars(),
                      {},
                      asked.kind,
                      asked.max_norm.has_value(),
                      asked.skips,
                      asked.formula,
                      asked.max_norm.value_or(0),
                      &found};
  queue.prepare({{}, {}, {}, {}, asked.skip, runtime.stream(), &work});
  queue.launch();
}

void the_bits_of_the_processor() {
  for (const NormKind kind : {NormKind::two, NormKind::largest}) {
    for (const bool with_large : {false, true}) {
      const Gradients gradients(7, with_large);
      GradientNorm norm;
      gradients.add_to(norm);
      StandIn runtime;
      Watched watched(runtime);
      FoundNorm found{};
      launch_norm(watched.queue, runtime, norm, {kind}, found);
      const GradientNorm::Result expected = norm.find(*targets().back(), kind, Team::own);
      gradients.add_to(norm);  // a device has copies of the tables
      runtime.synchronize();
      check(found.norm == expected.value && expected.value > 0, "a device's norm has the bits of the CPU's");
      check(found.factor == 1 && found.skips == 0 && found.skipped == 0, "without limits nothing follows from it");
    }
  }
}

void few_launches() {
  const Gradients gradients(8);
  GradientNorm norm;
  gradients.add_to(norm);
  StandIn runtime;
  Watched watched(runtime);
  FoundNorm found{};
  launch_norm(watched.queue, runtime, norm, {}, found);
  const int launches = runtime.launches, copies = runtime.copies, allocations = runtime.allocations;
  runtime.synchronize();
  launch_norm(watched.queue, runtime, norm, {}, found);
  check(runtime.launches - launches == 3, "a norm takes three launches");
  check(runtime.copies == copies && runtime.allocations == allocations, "and nothing is sent twice");
  check(runtime.waits == 0, "the host does not wait");
}

void nothing_has_no_norm() {
  GradientNorm norm;
  norm.begin();
  StandIn runtime;
  Watched watched(runtime);
  FoundNorm found{5, 5, 0, 5, 0};
  launch_norm(watched.queue, runtime, norm, {NormKind::two, 1.0, true}, found);
  runtime.synchronize();
  check(found.norm == 0 && found.factor == 1 && found.skips == 0, "the norm of nothing is zero");
}

// What is not finite is seen wherever it lies, in every dtype, and skips the step if asked; a flag from outside comes
// first and counts nothing.
void limits() {
  constexpr double huge = std::numeric_limits<double>::max();
  for (int dtype = 0; dtype < int(Dtype::other); ++dtype) {
    for (const double bad : {0.0, double(INFINITY), double(NAN), huge}) {
      const int64_t length = 3000, stride = 1;
      Stream stream(length, bytes_of(Dtype(dtype)), 3);
      Random random(9);
      stream.fill(random, true);
      if (bad == huge && Dtype(dtype) != Dtype::float64) continue;
      if (bad != 0) {
        const uint16_t half = std::isnan(bad) ? 0x7fff : Dtype(dtype) == Dtype::float16 ? 0x7c00 : 0x7f80;
        const float single = float(bad);
        const void* const from = dtype < 2    ? static_cast<const void*>(&half)
                                 : dtype == 2 ? &single
                                              : static_cast<const void*>(&bad);
        std::memcpy(stream.data() + 1777 * bytes_of(Dtype(dtype)), from, size_t(bytes_of(Dtype(dtype))));
      }
      GradientNorm norm;
      norm.begin();
      norm.add({stream.data(), &length, &stride, 1, Dtype(dtype), true, {}, nullptr}, 1);
      for (const ClipFormula formula : {ClipFormula::optax, ClipFormula::torch}) {
        for (const NormKind kind : {NormKind::two, NormKind::largest}) {
          StandIn runtime;
          Watched watched(runtime);
          const GradientNorm::Result expected = norm.find(*targets().back(), kind, Team::own);
          FoundNorm found{};
          float skip = 0;
          launch_norm(watched.queue, runtime, norm, {kind, 2.0, true, formula, &skip}, found);
          runtime.synchronize();
          const double factor = GradientLimits{2.0, true, formula}.factor(expected.value);
          const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
          check(same(found.norm, expected.value) && same(found.factor, factor), "norm and factor are the CPU's");
          check((found.skips != 0) == !expected.is_finite && found.skipped == found.skips, "and so is the flag");
          skip = 3;
          const FoundNorm before = found;
          launch_norm(watched.queue, runtime, norm, {kind, 1.0, true, formula, &skip}, found);
          runtime.synchronize();
          check(found.skips == 3 && found.skipped == before.skipped && same(found.norm, before.norm),
                "a flag from outside skips all");
        }
      }
    }
  }
}

// A step takes the factor and the flag.
void steps_are_limited() {
  const int rule = find_rule("adam");
  StandIn runtime;
  Twins twins(runtime, rule, {0, 5}, 20, 2, 77);
  Watched watched(runtime);
  for (const float flag : {0.0f, 1.0f}) {
    FoundNorm found{0, 0.37, 0, flag, 0};
    Step step = twins.take();
    Step scaled = step;
    for (Scalars& scalars : scaled.scalars) scalars.grad_scale *= found.factor;
    twins.prepare_there(watched.queue, step, &found);
    watched.queue.launch();
    if (flag == 0) twins.step_here(scaled);
    twins.check_alike();
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"the bits of the processor", the_bits_of_the_processor},
                    {"few launches", few_launches},
                    {"nothing has no norm", nothing_has_no_norm},
                    {"limits", limits},
                    {"steps are limited", steps_are_limited}});
}
