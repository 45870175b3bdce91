// How a device's steps are queued, on the device that the host plays (stand_in.h): few launches, no byte uploaded
// twice, no waiting, however late the device is; graphs; and nothing half done where something fails.
#include <algorithm>

#include "targets.h"
#include "twins.h"

namespace flatstep::testing {

namespace {

using device::Queue;

// Waits are counted for the test's own Queue until it goes.
class Watched {
 public:
  Watched(StandIn& runtime, int rule) : runtime_(runtime), queue_(runtime, StandIn::kernels, rule, 1) {
    runtime.use(1);
  }
  ~Watched() noexcept(false) {
    const bool has_waited = runtime_.waits > 0, is_restored = !runtime_.has_current_device();
    if (std::uncaught_exceptions() > 0) return;
    check(!has_waited, "nobody waits for the device");
    check(is_restored, "no device is current, as before");
  }
  operator Queue&() { return queue_; }
  Queue* operator->() { return &queue_; }

 private:
  StandIn& runtime_;
  Queue queue_;
};

// What a step asked of the device.
struct Asked {
  int launches, copies, allocations;
  bool operator==(const Asked&) const = default;
};

Asked asked_by_step(StandIn& runtime, Twins& twins, Queue& queue) {
  const Asked before{runtime.launches, runtime.copies, runtime.allocations};
  twins.step(queue);
  runtime.synchronize();
  return {runtime.launches - before.launches, runtime.copies - before.copies, runtime.allocations - before.allocations};
}

void steps_cost_little() {
  const int rule = find_rule("amsgrad");
  for (const std::vector<int>& layouts : {std::vector<int>{0}, std::vector<int>{0, 2, 5}}) {
    const int launches = 2 * int(layouts.size());
    for (const int64_t tensors : {1, 10'000}) {
      StandIn runtime;
      Twins twins(runtime, rule, layouts, tensors, 3, 7);
      twins.numbers.keep_count(0, NumberKind::float32, 0);
      Watched queue(runtime, rule);
      check(asked_by_step(runtime, twins, queue).launches == launches, "two launches a layout");
      check(asked_by_step(runtime, twins, queue) == Asked{launches, 0, 0}, "the same again costs its launches");
      twins.renew_gradients();
      const bool has_renewed = tensors > 1;  // a single gradient may be its update's place
      Asked asked = asked_by_step(runtime, twins, queue);
      if (has_renewed) check(asked.copies == 1 && asked.launches == launches, "gradients cost one copy");
      twins.numbers.scalars[0].learning_rate = twins.numbers.scalars[2].learning_rate = 0.5;
      check(asked_by_step(runtime, twins, queue) == Asked{launches, 1, 0}, "numbers cost one copy");
      check(asked_by_step(runtime, twins, queue) == Asked{launches, 0, 0}, "and once only");
      twins.check_alike();
    }
  }
}

// Pinned memory is there before the host is ahead of the device; then each copy has a buffer of its own.
void pinned_memory_is_made_beforehand() {
  const int rule = find_rule("adam");
  StandIn runtime;
  Twins twins(runtime, rule, {0}, 100, 1, 51);
  Watched queue(runtime, rule);
  const auto step = [&](int i) {
    twins.numbers.scalars[0].learning_rate = 1.0 / (i + 1);
    twins.step(queue);
  };
  step(0);
  runtime.synchronize();
  const int first = runtime.pinned_allocations;
  for (int i = 1; i <= 100; ++i) {
    step(i);
    if (i % 5 == 0) runtime.synchronize();
  }
  check(runtime.pinned_allocations == first, "a few steps ahead need no more of it");
  for (int i = 0; i < 20; ++i) step(i);
  check(runtime.pinned_allocations > first, "many steps ahead do");
  twins.check_alike();
}

// The same memory as other formats: tables are made for both.
void a_layout_is_part_of_what_tables_are_made_for() {
  const int rule = find_rule("optimistic_gradient_descent");
  constexpr int64_t count = 3 * 1024 - 20;  // three tiles or four: narrow ones begin 2 after a multiple of 64
  Random random(3);
  Stream param(count, 4, 33), grad(count, 4, 33), previous(count, 4, 33);
  for (Stream* stream : {&param, &grad, &previous}) stream->fill(random, true);
  Segment segment{};
  segment.count = count;
  segment.param = param.data();
  segment.grad = grad.data();
  segment.state[0] = previous.data();
  const std::vector<Row> rows = {{0, {}}};
  const std::vector<Scalars> scalars = {some_numbers(rules()[size_t(rule)], random)};
  const Call call{&segment, 1, scalars.data()};
  StandIn runtime;
  Watched queue(runtime, rule);
  for (const char* format : {"bfloat16", "float32"}) {
    const int layout = find_layout(dtype_named(format), dtype_named(format), dtype_named(format));
    const std::vector<Job> jobs = {{layout, nullptr, &call, count}};
    const std::string before_param = param.image(), before_previous = previous.image();
    queue->prepare({jobs, rows, scalars, {}, nullptr, nullptr});
    queue->launch();
    runtime.synchronize();
    const std::string after_param = param.image(), after_previous = previous.image();
    std::copy(before_param.begin(), before_param.end(), param.data());
    std::copy(before_previous.begin(), before_previous.end(), previous.data());
    targets().back()->kernels[rule][layout](call, 0, count);
    check(param.image() == after_param && previous.image() == after_previous, "each layout has tiles of its own");
  }
}

// As many steps as nobody waits for: pointers, numbers and the tensors themselves change under way.
void late_devices_get_everything_right(bool tensors_change) {
  Random random(tensors_change ? 11 : 12);
  for (const int layout : {0, 5, 8}) {
    const int rule = find_rule("adam");
    StandIn runtime;
    Twins twins(runtime, rule, {layout, 2}, tensors_change ? 30 : 5, 3, random.bits());
    twins.numbers.keep_count(1, NumberKind::int32, 0);
    LateNumber& rate = twins.numbers.trace(1, 0, NumberKind::float32, false, 0.1);
    LateNumber& skip = twins.numbers.keep_skip();
    Watched queue(runtime, rule);
    for (int i = 0; i < 200; ++i) {
      twins.step(queue, twins.take(tensors_change ? random.pick<int>({1, 10, 30, 100}) : 100));
      if (!tensors_change || random.chance(10)) twins.renew_gradients();
      twins.numbers.scalars[0].learning_rate = 1.0 / (i + 1);
      rate.set(runtime, 2.0 / (i + 1));
      skip.set(runtime, double(random.chance(10)));
    }
    twins.check_alike();
  }
}

StandIn::Graph capture(StandIn& runtime, Twins& twins, Watched& queue, const Step& step) {
  runtime.begin_capture();
  check(queue->is_capturing(nullptr), "a capture is seen");
  twins.prepare_there(queue, step);
  queue->launch();
  return runtime.end_capture();
}

// Captures are steps that come when they like. What they read is what there was when they were captured, and whatever
// the device's own numbers are by then.
void replays_go_on_where_eager_steps_leave_off() {
  Random random(21);
  for (int round = 0; round < 40; ++round) {
    const int rule = int(random.below(int64_t(rules().size())));
    StandIn runtime;
    Twins twins(runtime, rule, {0, 2}, 6, 3, random.bits());
    twins.numbers.keep_count(0, NumberKind::int64, 0);
    twins.numbers.keep_count(2, NumberKind::float32, 5);
    LateNumber& rate = twins.numbers.trace(0, 0, NumberKind::float32, false, 0.1);
    LateNumber& scale = twins.numbers.trace(2, 1, NumberKind::float32, true, 8);
    LateNumber& skip = twins.numbers.keep_skip();
    Watched queue(runtime, rule);
    for (int warm_up = round % 3; warm_up > 0; --warm_up) twins.step(queue);  // none: the first step ever is captured
    twins.renew_gradients();
    const Step captured = twins.take(random.pick<int>({50, 100}));
    const int copies = runtime.copies;
    const StandIn::Graph graph = capture(runtime, twins, queue, captured);
    if (!captured.there.empty()) check(runtime.copies > copies, "a graph has tables of its own");
    for (int i = 0; i < 30; ++i) {
      if (random.chance(50)) {
        runtime.replay(graph);
        twins.step_here(captured);
      } else {
        if (random.chance(50)) twins.renew_gradients();
        twins.numbers.scalars[1].learning_rate = 1.0 / (i + 2);
        twins.step(queue, twins.take(random.pick<int>({10, 60, 100})));
      }
      rate.set(runtime, 1.0 / (i + 1));
      scale.set(runtime, double(1 << random.below(5)));
      skip.set(runtime, double(random.chance(20)));
      if (random.chance(10)) twins.check_alike();
    }
    twins.check_alike();
  }
}

// A graph's tables live as long as the graph and its replays: no longer, and not less long either.
void tables_of_a_graph_go_with_it() {
  const int rule = find_rule("amsgrad");
  StandIn runtime;
  Twins twins(runtime, rule, {0, 5}, 12, 2, 61);
  twins.numbers.keep_count(0, NumberKind::float32, 0);
  StandIn::Graph graph;
  const Step step = twins.take();
  {
    Watched queue(runtime, rule);
    const auto capture_again = [&] {
      graph = capture(runtime, twins, queue, step);
      runtime.replay(graph);  // may still run when the next one takes its place
      twins.step_here(step);
    };
    capture_again();
    capture_again();
    runtime.synchronize();
    const size_t bytes = runtime.bytes_in_use();
    for (int i = 0; i < 50; ++i) {
      capture_again();
      if (i % 4 == 0) runtime.synchronize();
    }
    runtime.synchronize();
    capture_again();
    check(runtime.bytes_in_use() <= bytes, "graphs that are gone have no memory");
    twins.check_alike();
  }
  check(runtime.bytes_in_use() > 0, "the last graph keeps its tables");
  runtime.replay(graph);
  twins.step_here(step);
  twins.check_alike();
}

// A thread that has used no device makes no context on the first one; one that has goes on with its own.
void only_the_device_of_the_steps_is_used() {
  const int rule = find_rule("adam");
  for (const bool has_own : {false, true}) {
    StandIn runtime;
    runtime.use(1);
    if (has_own) runtime.set_device(2);
    {
      Twins twins(runtime, rule, {0}, 3, 1, 71);
      Queue queue(runtime, StandIn::kernels, rule, 1);
      char host[8] = {};
      void* const state = queue.allocate(sizeof host, nullptr);
      twins.step(queue);
      queue.copy(state, host, sizeof host, nullptr);
      queue.let_follow(nullptr);
      queue.wait();
      queue.release(state);
      runtime.begin_capture();
      twins.prepare_there(queue, twins.take());
      queue.launch();
      runtime.end_capture();
      runtime.synchronize();
    }
    check(runtime.used_devices() == (has_own ? std::set{1, 2} : std::set{1}), "no other device has a context");
    check(runtime.has_current_device() == has_own, "the thread has a device as before");
    check(!has_own || runtime.current_device() == 2, "the current device is what it was");
    check(runtime.bytes_in_use() == 0, "nothing is left");
  }
}

struct Attempt {
  bool is_captured, is_warm, gives_up;
};

// Whether the call with number n failed, and so the step; in which case all is as before.
bool fails_at(int n, const Attempt& attempt) {
  const int rule = find_rule("amsgrad");
  StandIn runtime;
  Twins twins(runtime, rule, {0, 5}, 12, 2, 31);
  twins.numbers.keep_count(0, NumberKind::float32, 0);
  Watched queue(runtime, rule);
  const Step warm = twins.take(20);
  if (attempt.is_warm) twins.step(queue, warm);
  runtime.synchronize();
  const auto before = twins.images_there();
  const Step step = twins.take();
  if (attempt.is_captured) runtime.begin_capture();
  runtime.fails_after = n;
  bool has_failed = false;
  try {
    twins.prepare_there(queue, step);
  } catch (const std::exception& error) {
    has_failed = true;
    check(std::string(error.what()).find("planned") != std::string::npos, "what failed is said");
  }
  check(has_failed == (runtime.fails_after < 0), "a failure is passed on");
  runtime.fails_after = -1;
  if (attempt.is_captured) runtime.end_capture();
  if (has_failed && attempt.gives_up) return true;  // the queue goes, whatever is under way
  runtime.synchronize();
  check(twins.images_there() == before, "what fails changes nothing");
  if (attempt.is_warm) twins.step(queue, warm);  // whose tables may be gone
  twins.step(queue);
  twins.step(queue, twins.take(50));
  twins.check_alike();
  return has_failed;
}

void failures_leave_all_as_it_was() {
  for (const bool is_captured : {false, true}) {
    for (const bool is_warm : {false, true}) {
      for (const bool gives_up : {false, true}) {
        int n = 0;
        while (fails_at(n, {is_captured, is_warm, gives_up})) ++n;
        check(n >= 2, "several calls may fail");
      }
    }
  }
}

void a_refused_launch_says_whose_it_was() {
  const int rule = find_rule("adam"), layout = find_layout(Dtype::bfloat16, Dtype::float32, Dtype::bfloat16);
  for (const bool is_first : {true, false}) {
    StandIn runtime;
    Twins twins(runtime, rule, {layout}, 3, 1, 41);
    Watched queue(runtime, rule);
    if (!is_first) twins.step(queue);
    twins.prepare_there(queue, twins.take());
    runtime.fails_launches = true;
    std::string text;
    try {
      queue->launch();
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    runtime.fails_launches = false;
    for (const char* part : {"adam", "bfloat16", "device 1", "a planned failure"})
      check(text.find(part) != std::string::npos, "a refused launch is named");
    if (is_first) continue;  // the queue goes, whatever is under way
    twins.step(queue);
    twins.check_alike();
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts(
      {{"steps cost little", steps_cost_little},
       {"pinned memory is made beforehand", pinned_memory_is_made_beforehand},
       {"tables of a graph go with it", tables_of_a_graph_go_with_it},
       {"only the device of the steps is used", only_the_device_of_the_steps_is_used},
       {"a layout is part of what tables are made for", a_layout_is_part_of_what_tables_are_made_for},
       {"late devices get everything right", [] { late_devices_get_everything_right(false); }},
       {"late devices get everything right as tensors change", [] { late_devices_get_everything_right(true); }},
       {"replays go on where eager steps leave off", replays_go_on_where_eager_steps_leave_off},
       {"failures leave all as it was", failures_leave_all_as_it_was},
       {"a refused launch says whose it was", a_refused_launch_says_whose_it_was}});
}
