// What a device's steps compute, on the device that the host plays (stand_in.h): the bits of the CPU for any tensors
// and any numbers, wherever those lie. How steps are queued is device_queue.cpp's.
#include <limits>

#include "plain_step.h"
#include "twins.h"

namespace flatstep::testing {

namespace {

using device::Queue;

void any_tensors_give_the_bits_of_the_cpu() {
  Random random(1);
  for_every_kernel([&](int rule, int layout) {
    for (int list = 0; list < 50; ++list) {
      StandIn runtime;
      Twins twins(runtime, rule, {layout}, random.between(1, 8), 2, random.bits());
      const auto before = twins.images_there();
      Queue queue(runtime, StandIn::kernels, rule, 0);
      twins.step(queue);
      twins.step(queue);
      twins.check_alike();
      check(twins.images_there() != before, "a step changes something");
    }
  });
}

// Where each element of a strided gradient lies, counted from its first.
std::vector<int64_t> places(const Segment& segment) {
  std::vector<int64_t> all;
  if (!segment.walk) {
    for (int64_t i = 0; i < segment.count; ++i) all.push_back(i);
    return all;
  }
  all = {0};
  for (int axis = 0; axis < segment.walk->axes; ++axis) {
    std::vector<int64_t> finer;
    for (const int64_t place : all) {
      for (int64_t i = 0; i < segment.walk->shape[axis]; ++i) finer.push_back(place + i * segment.walk->strides[axis]);
    }
    all = std::move(finer);
  }
  return all;
}

void step_plainly(int rule, int layout, const Segment& segment, const Scalars& scalars) {
  const LayoutDescription& formats = layouts()[size_t(layout)];
  const std::vector<SlotDescription>& slots = rules()[size_t(rule)].slots;
  const std::vector<int64_t> from = places(segment);
  for (int64_t i = 0; i < segment.count; ++i) {
    char* const param = static_cast<char*>(segment.param) + i * bytes_of(formats.param);
    char grad[8];
    std::memcpy(grad, static_cast<const char*>(segment.grad) + from[size_t(i)] * bytes_of(formats.grad),
                size_t(bytes_of(formats.grad)));
    if (segment.makes_update) {  // -0 in every format
      std::memset(param, 0, size_t(bytes_of(formats.param)));
      param[bytes_of(formats.param) - 1] = char(0x80);
    }
    void* state[max_slots];
    for (size_t slot = 0; slot < slots.size(); ++slot)
      state[slot] = static_cast<char*>(segment.state[slot]) + i * bytes_of(formats.slot(slots[slot].role));
    plain_step(rule, layout, scalars, param, grad, state);
  }
}

void a_step_is_the_plain_step_of_each_element() {
  Random random(2);
  for_every_kernel([&](int rule, int layout) {
    for (int list = 0; list < 8; ++list) {
      const std::vector<int64_t> lengths = random_lengths(random, random.between(1, 6));
      const uint64_t seed = random.bits();
      const Streams here(rule, layout, lengths, 1, seed), there(rule, layout, lengths, 1, seed);
      const std::vector<Scalars> scalars = {some_numbers(rules()[size_t(rule)], random)};
      const std::vector<Row> rows = {{0, {}}};
      const Call call{there.segments().data(), int64_t(there.segments().size()), nullptr};
      const std::vector<Job> jobs = {{layout, nullptr, &call, 0}};
      StandIn runtime;
      Queue queue(runtime, StandIn::kernels, rule, 0);
      queue.prepare({jobs, rows, scalars, {}, nullptr, nullptr});
      queue.launch();
      runtime.synchronize();
      for (const Segment& segment : here.segments()) step_plainly(rule, layout, segment, scalars[0]);
      check(here.images() == there.images(), "a device's step is the plain step of each element");
    }
  });
}

constexpr NumberKind kinds[] = {NumberKind::float32, NumberKind::float64, NumberKind::int32, NumberKind::int64};

// A value that a number may have, and its kind can hold.
double some_value(Random& random, int32_t number, NumberKind kind) {
  const bool is_flag = number >= 3 && number <= 5, is_common = number < 6;
  if (is_flag) return double(random.below(2));
  if (kind == NumberKind::float32 || kind == NumberKind::float64) return random.pick<double>({0.1, 0.3, 0.7});
  return is_common ? double(random.between(1, 3)) : 0;
}

// Rows of numbers that several layouts share; counts of every kind on the device.
void counts_move_on_the_device() {
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    StandIn runtime;
    const int rule = int(random.below(int64_t(rules().size())));
    Twins twins(runtime, rule, {0, 2}, 4, 5, random.bits());
    for (int64_t row = 0; row < 4; ++row)  // the last has its count by value
      twins.numbers.keep_count(row, kinds[(row + round) % 4], random.pick<int64_t>({0, 1, 2, 1000}));
    Queue queue(runtime, StandIn::kernels, rule, 0);
    for (int step = 0; step < 4; ++step) twins.step(queue, twins.take(50));
    twins.check_alike();
  }
}

void numbers_are_read_on_the_device() {
  Random random(4);
  for_every_kernel([&](int rule, int layout) {
    const auto numbers = int32_t(6 + rules()[size_t(rule)].hyperparameters.size());
    for (int32_t number = 0; number < numbers; ++number) {
      for (const NumberKind kind : kinds) {
        StandIn runtime;
        Twins twins(runtime, rule, {layout}, 3, 2, random.bits());
        const bool is_inverted = number < 2 && random.chance(50);
        LateNumber& late =
            twins.numbers.trace(random.below(2), number, kind, is_inverted, some_value(random, number, kind));
        twins.numbers.trace(random.below(2), 0, NumberKind::float32, false, 0.25);
        Queue queue(runtime, StandIn::kernels, rule, 0);
        for (int step = 0; step < 3; ++step) {
          twins.step(queue);
          late.set(runtime, some_value(random, number, kind));
        }
        twins.check_alike();
      }
    }
  });
}

// In any order, and where a number is given twice, the last one.
void each_row_finds_its_numbers_among_many() {
  constexpr int64_t rows = 400;
  Random random(6);
  for (const char* name : {"adam", "optimistic_adam"}) {
    StandIn runtime;
    Twins twins(runtime, find_rule(name), {0}, 3 * rows, rows, random.bits());
    for (int64_t i = 0; i < 3 * rows; ++i) {
      const bool is_inverted = random.chance(30);
      twins.numbers.trace(random.below(rows), is_inverted, NumberKind::float32, is_inverted, 1.0 / double(i + 2));
    }
    Queue queue(runtime, StandIn::kernels, find_rule(name), 0);
    twins.step(queue);
    twins.step(queue);
    twins.check_alike();
  }
}

void a_skipped_step_changes_nothing() {
  Random random(5);
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for_every_kernel([&](int rule, int layout) {
    StandIn runtime;
    Twins twins(runtime, rule, {layout}, 3, 2, random.bits());
    twins.numbers.keep_count(0, NumberKind::float32, 3);
    LateNumber& skip = twins.numbers.keep_skip();
    Queue queue(runtime, StandIn::kernels, rule, 0);
    for (const double flag : {1.0, 0.0, nan, -0.0, infinity, 1e-45, -1.0, 0.0}) {
      skip.set(runtime, flag);
      runtime.synchronize();
      const auto before = twins.images_there();
      twins.step(queue);
      twins.check_alike();
      if (flag != 0) check(twins.images_there() == before, "a step is skipped where the flag is anything but 0");
    }
  });
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"any tensors give the bits of the CPU", any_tensors_give_the_bits_of_the_cpu},
                    {"a step is the plain step of each element", a_step_is_the_plain_step_of_each_element},
                    {"counts move on the device", counts_move_on_the_device},
                    {"numbers are read on the device", numbers_are_read_on_the_device},
                    {"each row finds its numbers among many", each_row_finds_its_numbers_among_many},
                    {"a skipped step changes nothing", a_skipped_step_changes_nothing}});
}
