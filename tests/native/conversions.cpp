// The law of conversions: on every target a step reads every number of a 16-bit format, and rounds a float32 to it on
// each side of every boundary, as the format's own load and store do. Any NaN is as good as another.
#include "plain_step.h"
#include "targets.h"
#include "testing.h"

namespace flatstep::testing {

namespace {

struct Narrow {
  const char* name;
  uint16_t infinity;
};

// The upper 20 bits of a float32 hold the last that is kept and the one that makes a tie; of those below it matters
// only whether there are any.
constexpr uint32_t below[] = {0, 1, 0xfff};
constexpr int64_t count = int64_t{std::size(below)} << 20;

// A rule that keeps each gradient as it came. A learning rate of 0 leaves parameters as they were, too.
struct Step {
  int rule = find_rule("optimistic_gradient_descent"), layout;
  Scalars scalars{};
  Block param{2 * count}, grad{4 * count}, previous{2 * count};

  explicit Step(const Narrow& format)
      : layout(find_layout(dtype_named(format.name), Dtype::float32, dtype_named(format.name))) {
    scalars.count = 1;
    scalars.grad_scale = 1;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t number = uint16_t(i);
      const uint32_t wide = uint32_t(i) / std::size(below) << 12 | below[uint32_t(i) % std::size(below)];
      std::memcpy(param.data() + 2 * i, &number, sizeof number);
      std::memcpy(grad.data() + 4 * i, &wide, sizeof wide);
      std::memset(previous.data() + 2 * i, 0, sizeof number);
    }
  }

  void as_defined() {
    for (int64_t i = 0; i < count; ++i) {
      void* const state[] = {previous.data() + 2 * i};
      plain_step(rule, layout, scalars, param.data() + 2 * i, grad.data() + 4 * i, state);
    }
  }

  void on(const Target& target) {
    Segment segment{};
    segment.count = count;
    segment.param = param.data();
    segment.grad = grad.data();
    segment.state[0] = previous.data();
    target.kernels[rule][layout]({&segment, 1, &scalars}, 0, count);
  }
};

bool same(const Block& one, const Block& other, uint16_t infinity) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t a, b;
    std::memcpy(&a, one.data() + 2 * i, sizeof a);
    std::memcpy(&b, other.data() + 2 * i, sizeof b);
    if (a != b && ((a & 0x7fff) <= infinity || (b & 0x7fff) <= infinity)) return false;
  }
  return true;
}

void targets_convert_as_formats_do() {
  for (const Narrow& format : {Narrow{"float16", 0x7c00}, Narrow{"bfloat16", 0x7f80}}) {
    Step defined(format);
    defined.as_defined();
    for (const Target* target : targets()) {
      Step step(format);
      step.on(*target);
      check(same(step.previous, defined.previous, format.infinity), "a target rounds as the format does");
      check(same(step.param, defined.param, format.infinity), "a target reads what the format does");
    }
  }
}

}  // namespace

}  // namespace flatstep::testing

int main() {
  using namespace flatstep::testing;
  return run_parts({{"targets convert as formats do", targets_convert_as_formats_do}});
}
