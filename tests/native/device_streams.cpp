// Steps on several streams and devices, on those that the host plays (stand_in.h): whatever goes on first, a queue's
// tables are what the step at hand needs. And what the stand-in itself finds out.
#include "twins.h"

namespace flatstep::testing {

namespace {

bool is_stopped(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

void streams_go_on_by_themselves() {
  StandIn runtime;
  std::string done;
  void* const other = runtime.make_stream(0);
  const auto run = [&](void* stream, char name) {
    runtime.use(0, stream);
    runtime.run([&done, name] { done += name; });
  };
  run(nullptr, 'a');
  run(other, 'b');
  run(nullptr, 'c');
  runtime.use(0, other);
  runtime.go_on();
  check(done == "b", "a stream waits for no other");
  void* const event = runtime.make_event();
  runtime.wait_in_stream(other, event);
  run(other, 'd');
  runtime.go_on();
  check(done == "bd", "nobody waits for what was never recorded");
  runtime.record(event, nullptr);
  runtime.wait_in_stream(other, event);
  runtime.record(event, other);  // waiting is for the recording before
  run(other, 'e');
  runtime.go_on();
  check(done == "bd", "a stream waits for an event");
  runtime.use(0);
  runtime.go_on();
  runtime.use(0, other);
  runtime.go_on();
  check(done == "bdace", "and goes on after it");
  runtime.release_event(event);
}

// Each of these is undefined, or an error, on a device.
void misuse_is_found_out() {
  StandIn runtime;
  void* const there = runtime.make_stream(1);
  void* const memory = runtime.allocate(8, nullptr);
  void* const event = runtime.make_event();
  const auto touch = [&](void* stream, const void* what) { runtime.enqueue_launch(stream, {what}, [] {}); };
  const std::vector<std::function<void()>> wrong_device = {
      [&] { runtime.allocate(8, there); },
      [&] { touch(there, nullptr); },
      [&] { runtime.record(event, there); },
      [&] { runtime.wait_in_stream(there, event); },
      [&] { runtime.copy(memory, "1234567", 8, there); },
  };
  for (const auto& call : wrong_device) check(is_stopped(call), "another device is current");
  const auto fails_later = [&](const auto& call) {
    call();
    return is_stopped([&] { runtime.go_on(); });
  };
  void* const beside = runtime.make_stream(0);
  runtime.use(0, beside);
  check(fails_later([&] { touch(beside, memory); }), "memory is there only later");
  runtime.synchronize();
  check(!fails_later([&] { touch(beside, memory); }), "memory is there");
  runtime.set_device(1);
  check(is_stopped([&] { runtime.copy_now(memory, "1234567", 8); }), "memory of another device");
  check(is_stopped([&] { runtime.record(event, there); }), "an event of another device");
  runtime.use(1, there);
  check(fails_later([&] { touch(there, memory); }), "memory of another device");
  runtime.set_device(0);
  runtime.release(memory, nullptr);
  runtime.release_event(event);
}

// Parts of a model, which take turns on two streams that nobody orders: both late, the second one first.
class Turns {
 public:
  explicit Turns(uint64_t seed)
      : twins_(runtime, rule_, {0, 2}, 4, 3, seed), queue_(runtime, StandIn::kernels, rule_, 1) {
    const Step all = twins_.take();
    for (size_t i = 0; i < 2; ++i) parts_.push_back({{all.here[i]}, {all.there[i]}, all.scalars});
  }

  StandIn runtime;

  void prepare(size_t part) { twins_.prepare_there(queue_, parts_[part]); }
  void step(size_t part) { twins_.step(queue_, parts_[part]); }
  void capture_step(size_t part) {
    runtime.use(1, runtime.make_stream(1));
    runtime.begin_capture();
    prepare(part);
    queue_.launch();
    runtime.end_capture();
  }

  // The tables are as the other stream was told, whatever the first one does later.
  void finish_on(void* second) {
    runtime.use(1, second);
    step(1);
    runtime.go_on();
    runtime.synchronize();
    step(1);
    twins_.check_alike();
    const int waits = runtime.waits_in_stream;
    step(1);
    check(runtime.waits_in_stream == waits && runtime.waits == 0, "who stays on a stream waits for nothing");
    twins_.check_alike();
  }

 private:
  int rule_ = find_rule("amsgrad");
  Twins twins_;
  device::Queue queue_;
  std::vector<Step> parts_;
};

void another_stream_waits_for_the_tables() {
  const std::vector<std::function<void(Turns&)>> firsts = {
      [](Turns& turns) { turns.step(0); },
      [](Turns& turns) { turns.prepare(0); },  // and gives up
      [](Turns& turns) {
        turns.step(0);
        turns.prepare(1);
      },
      [](Turns& turns) {
        turns.step(0);
        turns.capture_step(1);
      },
  };
  for (const auto& first : firsts) {
    for (const bool is_warm : {false, true}) {
      for (const bool is_destroyed : {false, true}) {
        Turns turns(5);
        void* const handle = turns.runtime.make_stream(1);
        turns.runtime.use(1, handle);
        if (is_warm) turns.step(1);
        first(turns);
        if (is_destroyed) turns.runtime.destroy_stream(handle);
        void* const second = turns.runtime.make_stream(1);
        check((second == handle) == is_destroyed, "a handle may come again");
        turns.finish_on(second);
      }
    }
  }
}

// Whether the call with number n failed, on the first stream or on the second one.
bool fails_at(int n, bool on_second) {
  Turns turns(6);
  void* const streams[] = {turns.runtime.make_stream(1), turns.runtime.make_stream(1)};
  turns.runtime.use(1, streams[0]);
  if (on_second) {
    turns.step(0);
    turns.runtime.use(1, streams[1]);
  }
  turns.runtime.fails_after = n;
  try {
    turns.prepare(1);
  } catch (const OutOfDeviceMemory&) {
  } catch (const std::runtime_error&) {
  }
  const bool has_failed = turns.runtime.fails_after < 0;
  turns.runtime.fails_after = -1;
  turns.finish_on(streams[1]);
  return has_failed;
}

void what_failed_on_one_stream_is_done_on_another() {
  for (const bool on_second : {false, true}) {
    int n = 0;
    while (fails_at(n, on_second)) ++n;
    check(n > 6, "several calls may fail");
  }
}

// A part of a model, which has a stream of its own and does anything there, by a queue that it shares with others.
class Wanderer {
 public:
  Wanderer(StandIn& runtime, device::Queue& queue, int rule, uint64_t seed)
      : runtime_(runtime),
        queue_(queue),
        twins_(runtime, rule, {0, 2}, 3, 3, seed),
        rate_(twins_.numbers.trace(0, 0, NumberKind::float32, false, 0.1)),
        skip_(twins_.numbers.keep_skip()),
        stream_(runtime.make_stream(1)) {
    twins_.numbers.keep_count(1, NumberKind::int32, 0);
  }

  void do_something() {
    runtime_.use(1, stream_);
    switch (twins_.random.below(10)) {
      case 0: return renew();
      case 1: return capture();
      case 2: return move();
      case 3: return runtime_.go_on();
      case 4:
      case 5: return replay();
      default: return step();
    }
  }
  void check_alike() { twins_.check_alike(); }

 private:
  struct Captured {
    StandIn::Graph graph;
    Step step;
  };

  // Whether nothing failed; as a rule nothing is to.
  bool is_prepared(const Step& step) {
    runtime_.fails_after = twins_.random.chance(30) ? int(twins_.random.below(6)) : -1;
    runtime_.failures = 1;
    try {
      twins_.prepare_there(queue_, step);
    } catch (const std::exception& error) {
      check(std::string(error.what()).find("planned") != std::string::npos, error.what());
      return false;
    }
    runtime_.fails_after = -1;
    return true;
  }

  void step() {
    const Step step = twins_.take(twins_.random.pick<int>({10, 60, 100, 100, 100}));
    if (!is_prepared(step) || twins_.random.chance(10)) return;
    queue_.launch();
    twins_.step_here(step);
  }

  void capture() {
    Step step = twins_.take(80);
    runtime_.begin_capture();
    const bool is_whole = is_prepared(step);
    if (is_whole) queue_.launch();
    StandIn::Graph graph = runtime_.end_capture();
    if (is_whole) captured_.push_back({std::move(graph), std::move(step)});
  }

  void replay() {
    if (captured_.empty()) return;
    const Captured& one = captured_[size_t(twins_.random.below(int64_t(captured_.size())))];
    runtime_.replay(one.graph);
    twins_.step_here(one.step);
  }

  void renew() {
    if (twins_.random.chance(50)) twins_.renew_gradients();
    twins_.numbers.scalars[1].learning_rate = 1.0 / double(twins_.random.between(1, 9));
    rate_.set(runtime_, 1.0 / double(twins_.random.between(1, 9)));
    skip_.set(runtime_, double(twins_.random.chance(20)));
  }

  // To another stream, in order, as programs do.
  void move() {
    const device::CurrentDevice current(runtime_, 1);
    void* const event = runtime_.make_event();
    runtime_.record(event, stream_);
    if (twins_.random.chance(50)) runtime_.destroy_stream(stream_);
    stream_ = runtime_.make_stream(1);
    runtime_.wait_in_stream(stream_, event);
    runtime_.release_event(event);
  }

  StandIn& runtime_;
  device::Queue& queue_;
  Twins twins_;
  LateNumber &rate_, &skip_;
  void* stream_;
  std::vector<Captured> captured_;
};

void anything_gives_the_bits_of_the_cpu() {
  Random random(7);
  for (int round = 0; round < 60; ++round) {
    const int rule = int(random.below(int64_t(rules().size())));
    StandIn runtime;
    device::Queue queue(runtime, StandIn::kernels, rule, 1);
    std::vector<std::unique_ptr<Wanderer>> parts;
    for (int i = 0; i < 3; ++i) parts.push_back(std::make_unique<Wanderer>(runtime, queue, rule, random.bits()));
    for (int i = 0; i < 100; ++i) {
      random.pick(parts)->do_something();
      if (random.chance(3)) random.pick(parts)->check_alike();
    }
    for (const auto& part : parts) part->check_alike();
    check(runtime.waits == 0 && !runtime.has_current_device(), "no call waits, and no device is current, as before");
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"streams go on by themselves", streams_go_on_by_themselves},
                    {"misuse is found out", misuse_is_found_out},
                    {"another stream waits for the tables", another_stream_waits_for_the_tables},
                    {"what failed on one stream is done on another", what_failed_on_one_stream_is_done_on_another},
                    {"anything gives the bits of the CPU", anything_gives_the_bits_of_the_cpu}});
}
