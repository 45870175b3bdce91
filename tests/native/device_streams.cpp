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

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts(
      {{"streams go on by themselves", streams_go_on_by_themselves}, {"misuse is found out", misuse_is_found_out}});
}
