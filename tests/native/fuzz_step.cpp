// Random tensors against step.h: it takes exactly what it promises to take, and a step on what it took changes exactly
// the elements of parameters and state, to what the plain step makes of each. All else is a canary.
//
//   fuzz_step [plans] [first seed] [seconds]    ends with the plans or with the seconds, whichever comes first
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "hostile_tensors.h"
#include "plain_step.h"

namespace flatstep::testing {

namespace {

constexpr int64_t most_leaves = 4, room_bytes = 32'000;

struct Tally {
  int64_t plans = 0, plans_refused = 0, steps = 0, steps_refused = 0, walks = 0, around = 0;
};

// One optimizer's life: its parameters, its state, three steps.
class Life {
 public:
  Life(uint64_t seed, Tally& tally)
      : random_(seed),
        tally_(tally),
        params_memory_(most_leaves * room_bytes),
        grads_memory_(most_leaves * room_bytes) {
    params_memory_.fill(random_, true);
    rule_ = int(random_.below(int64_t(rules().size())));
    if (random_.chance(50)) first_moment_ = random_.pick(layouts()).first_moment;
    if (!make_params()) return;
    make_state();
    for (int i = 0; i < 3; ++i) take_step();
  }

 private:
  bool make_params() {
    const int64_t leaves = random_.between(0, most_leaves);
    bool good = true;
    params_.reserve(most_leaves);  // tensors point into them
    for (int64_t i = 0; i < leaves; ++i) {
      const Description& param = params_.emplace_back(random_param(random_, room_for_param(i)));
      good = good && is_good_param(param, rule_, first_moment_);
      for (const Range& other : written_) good = good && !other.overlaps(extent_of(param));
      if (extent_of(param).begin < extent_of(param).end) written_.push_back(extent_of(param));
    }
    ++tally_.plans;
    try {
      OverlapCheck overlap;
      for (int64_t i = 0; i < leaves; ++i) {
        const Tensor param = params_[size_t(i)].tensor();
        check_new_parameter(rule_, i, param, first_moment_);
        Extent extent{0, 0, i, nullptr};
        if (element_count(param) > 0 && find_extent(param, extent)) overlap.add_written(extent);
      }
      overlap.check();
    } catch (const ArgumentError& refusal) {
      ++tally_.plans_refused;
      check(!good, "good parameters were refused");
      check(refusal.operand == Operand::param && refusal.index < leaves && !refusal.text.empty(),
            "an error makes sense");
      return false;
    }
    check(good, "bad parameters were taken");
    return true;
  }

  void make_state() {
    const std::vector<SlotDescription>& slots = rules()[size_t(rule_)].slots;
    std::vector<std::string> names;
    offsets_.resize(slots.size());
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      int64_t bytes = 0;
      for (const Description& param : params_) {
        const int item = bytes_of(slot_dtype(param, slot));
        bytes = (bytes + item - 1) / item * item + random_.below(8) * item;
        offsets_[slot].push_back(bytes);
        bytes += element_count(param.tensor()) * item;
      }
      names.emplace_back(slots[slot].name);
      Block& block = state_.emplace_back(bytes);
      block.fill(random_, false);
      const auto begin = Wide(reinterpret_cast<uintptr_t>(block.data()));
      if (bytes > 0) written_.push_back({begin, begin + bytes});
    }
    step_.emplace(rule_, names, StepOptions{false, false, true});
    for (size_t i = 0; i < params_.size(); ++i) {
      Extent extent{0, 0, int64_t(i), nullptr};
      const Tensor param = params_[i].tensor();
      if (element_count(param) > 0 && find_extent(param, extent)) step_->fix_memory(extent);
    }
    for (const Block& block : state_) {
      const auto begin = reinterpret_cast<uintptr_t>(block.data());
      if (block.bytes() > 0) step_->fix_memory({begin, begin + uintptr_t(block.bytes()), -1, nullptr});
    }
  }

  Dtype slot_dtype(const Description& param, size_t slot) const {
    const int layout = find_layout(param.dtype, param.dtype, first_moment_.value_or(param.dtype));
    return layouts()[size_t(layout)].slot(rules()[size_t(rule_)].slots[slot].role);
  }

  Parameter parameter(size_t index, const Description& grad, int64_t row) const {
    Parameter parameter{int64_t(index), params_[index].tensor(), grad.tensor(), {}, row};
    for (size_t slot = 0; slot < state_.size(); ++slot) {
      parameter.state[slot] = parameter.param;
      parameter.state[slot].data = state_[slot].data() + offsets_[slot][index];
      parameter.state[slot].dtype = slot_dtype(params_[index], slot);
    }
    return parameter;
  }

  // The step's jobs. Throws ArgumentError.
  const std::vector<Job>& jobs(const std::vector<std::optional<Description>>& grads, const std::vector<int64_t>& rows,
                               const std::vector<Scalars>& scalars) {
    step_->begin();
    for (size_t i = 0; i < grads.size(); ++i) {
      if (grads[i]) check(step_->add(parameter(i, *grads[i], rows[i])), "dense parameters are taken as they lie");
    }
    step_->check_overlap();
    return step_->jobs(scalars, *random_.pick(targets()));
  }

  void take_step() {
    grads_memory_.fill(random_, true);
    std::vector<std::optional<Description>> grads;
    std::vector<int64_t> rows;
    bool good = true;
    for (const Description& param : params_) {
      grads.emplace_back();
      if (!random_.chance(10)) grads.back() = random_grad(random_, room_for_grad(), param);
      if (grads.back() && random_.chance(10)) {
        const Range middle = extent_of(random_.pick(params_));
        if (const auto spread = spread_grad(random_, param, middle, all_of(params_memory_))) grads.back() = spread;
      }
      rows.push_back(random_.below(2));
      if (grads.back()) good = good && is_good_grad(*grads.back(), param, written_);
    }
    const RuleDescription& rule = rules()[size_t(rule_)];
    const std::vector<Scalars> scalars = {some_numbers(rule, random_), some_numbers(rule, random_)};

    const std::vector<std::string> before = images();
    const std::vector<Job>* made;
    ++tally_.steps;
    try {
      made = &jobs(grads, rows, scalars);
    } catch (const ArgumentError& refusal) {
      ++tally_.steps_refused;
      check(!good, "good gradients were refused");
      check(refusal.operand == Operand::grad && !refusal.text.empty(), "an error makes sense");
      check(images() == before, "a refusal changes nothing");
      return;
    }
    check(good, "bad gradients were taken");
    for (const auto& grad : grads) tally_.around += grad && is_around_written(*grad);
    run(*made, Team::own);
    for (const Job& job : *made) {
      for (int64_t i = 0; i < job.call->segment_count; ++i) tally_.walks += job.call->segments[i].walk != nullptr;
    }

    const std::vector<std::string> after = images();
    restore(before);
    for (size_t leaf = 0; leaf < grads.size(); ++leaf) {
      if (grads[leaf]) step_plainly(leaf, *grads[leaf], scalars[size_t(rows[leaf])]);
    }
    check(images() == after, "a step is the plain step of each element, and nothing else");
  }

  void step_plainly(size_t leaf, const Description& grad, const Scalars& scalars) {
    const Description& param = params_[leaf];
    const int layout = find_layout(param.dtype, param.dtype, first_moment_.value_or(param.dtype));
    const auto to = addresses(param), from = addresses(grad);
    const Wide first = extent_of(param).begin;
    std::vector<char*> state;
    std::vector<int> bytes;
    for (size_t slot = 0; slot < state_.size(); ++slot) {
      state.push_back(state_[slot].data() + offsets_[slot][leaf]);
      bytes.push_back(bytes_of(slot_dtype(param, slot)));
    }
    for (size_t i = 0; i < to->size(); ++i) {
      const auto place = int64_t(((*to)[i] - first) / param.item_bytes());  // state lies as its parameter does
      void* slots[max_slots];
      for (size_t slot = 0; slot < state.size(); ++slot) slots[slot] = state[slot] + place * bytes[slot];
      plain_step(rule_, layout, scalars, reinterpret_cast<void*>(uintptr_t((*to)[i])),
                 reinterpret_cast<const void*>(uintptr_t((*from)[i])), slots);
    }
  }

  static Room all_of(const Block& block) { return {block.data(), block.bytes()}; }

  // Beside a parameter, or over the edge by an element: where it ends, to the end of all parameters' memory, or from
  // the beginning of that to where it begins.
  Room touching_a_param() {
    const Room all = all_of(params_memory_);
    if (params_.empty()) return all;
    const Description& param = random_.pick(params_);
    const Range extent = extent_of(param);
    const int64_t overlap = random_.below(2) * param.item_bytes();
    const Wide start = Wide(reinterpret_cast<uintptr_t>(all.begin)), stop = start + all.bytes;
    const Wide begin = random_.chance(50) ? extent.end - overlap : start;
    const Wide end = begin == start ? extent.begin + overlap : stop;
    const bool is_room = begin >= start && end <= stop && end - begin >= room_bytes;
    return is_room ? Room{all.begin + int64_t(begin - start), int64_t(end - begin)} : all;
  }

  // Whether something written lies between a gradient's elements.
  bool is_around_written(const Description& grad) const {
    return std::any_of(written_.begin(), written_.end(),
                       [extent = extent_of(grad)](const Range& other) { return extent.overlaps(other); });
  }

  Room room_for_param(int64_t leaf) {
    if (random_.chance(3)) return all_of(params_memory_);
    if (random_.chance(10)) return touching_a_param();
    return {params_memory_.data() + leaf * room_bytes, room_bytes};
  }

  // Gradients may share memory with each other, but not with what a step writes.
  Room room_for_grad() {
    if (random_.chance(5)) return touching_a_param();
    if (random_.chance(2) && !state_.empty() && state_[0].bytes() > 0) return all_of(state_[0]);
    return all_of(grads_memory_);
  }

  std::vector<std::string> images() const {
    std::vector<std::string> all = {params_memory_.image(), grads_memory_.image()};
    for (const Block& block : state_) all.push_back(block.image());
    return all;
  }

  void restore(const std::vector<std::string>& all) {
    params_memory_.restore(all[0]);
    for (size_t slot = 0; slot < state_.size(); ++slot) state_[slot].restore(all[slot + 2]);
  }

  Random random_;
  Tally& tally_;
  Block params_memory_, grads_memory_;
  int rule_;
  std::optional<Dtype> first_moment_;
  std::vector<Description> params_;
  std::vector<Range> written_;
  std::vector<Block> state_;
  std::vector<std::vector<int64_t>> offsets_;  // by slot, then by parameter
  std::optional<Step> step_;
};

void fuzz(uint64_t plans, uint64_t first_seed, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  Tally tally;
  for (uint64_t seed = first_seed; seed < first_seed + plans && Clock::now() < end; ++seed) {
    try {
      Life(seed, tally);
    } catch (const std::exception& error) {
      throw std::runtime_error(std::string(error.what()) + "; again by: fuzz_step 1 " + std::to_string(seed));
    }
  }
  std::printf(
      "%ld plans, %ld of them refused; %ld steps, %ld of them refused; %ld strided gradients taken, %ld around what is "
      "written\n",
      long(tally.plans), long(tally.plans_refused), long(tally.steps), long(tally.steps_refused), long(tally.walks),
      long(tally.around));
  if (tally.plans < 100) return;
  check(tally.plans_refused * 20 > tally.plans && tally.plans_refused * 2 < tally.plans, "plans are good and bad");
  check(tally.steps_refused * 20 > tally.steps && tally.steps_refused * 2 < tally.steps, "steps are good and bad");
  check(tally.walks * 10 > tally.steps, "gradients are strided");
  check(tally.around * 300 > tally.steps, "some have what is written between their elements");
}

}  // namespace

}  // namespace flatstep::testing

int main(int count, char** arguments) {
  const uint64_t plans = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 5000;
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
  const double seconds = count > 3 ? std::atof(arguments[3]) : 20;
  return flatstep::testing::run_parts({{"random tensors", [=] { flatstep::testing::fuzz(plans, seed, seconds); }}});
}
