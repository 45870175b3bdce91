// See twins.h.
#include "twins.h"

#include <cstring>

#include "targets.h"
#include "work.h"

namespace flatstep::testing {

namespace {

template <class T>
double write_as(char* to, double value) {
  const T own = T(value);
  std::memcpy(to, &own, sizeof own);
  return double(own);
}

double write(NumberKind kind, char* to, double value) {
  switch (kind) {
    case NumberKind::float32: return write_as<float>(to, value);
    case NumberKind::float64: return write_as<double>(to, value);
    case NumberKind::int32: return write_as<int32_t>(to, value);
    case NumberKind::int64: break;
  }
  return write_as<int64_t>(to, value);
}

// The doubles of Scalars, as Traced counts them.
double& number_of(Scalars& scalars, int32_t number) {
  return number < scalar_count ? scalars.*common_scalars[number].member
                               : scalars.hyperparameters[number - scalar_count];
}

std::vector<Streams> make_streams(int rule, const std::vector<int>& layouts, int64_t tensors, int64_t rows,
                                  uint64_t seed) {
  Random random(seed);
  std::vector<Streams> all;
  for (const int layout : layouts) {
    const std::vector<int64_t> lengths = random_lengths(random, tensors);
    all.emplace_back(rule, layout, lengths, rows, random.bits());
  }
  return all;
}

void add(Part& part, Segment segment) {
  segment.first = part.segments.empty() ? 0 : part.segments.back().first + part.segments.back().count;
  part.segments.push_back(segment);
}

Call call_of(const Part& part, const std::vector<Scalars>& scalars) {
  return {part.segments.data(), int64_t(part.segments.size()), scalars.data()};
}

int64_t elements_of(const Part& part) { return part.segments.back().first + part.segments.back().count; }

}  // namespace

LateNumber::LateNumber(NumberKind kind, double value) : kind(kind), value(write(kind, memory.data(), value)) {}

void LateNumber::set(StandIn& runtime, double to) {
  char fresh[8];
  value = write(kind, fresh, to);
  runtime.run([this, to] { write(kind, memory.data(), to); });
}

Numbers::Numbers(int rule, int64_t rows, Random& random) : counts_(size_t(rows)) {
  for (int64_t i = 0; i < rows; ++i) {
    scalars.push_back(some_numbers(flatstep::rules()[size_t(rule)], random));
    rows_.push_back({rows - 1 - i, {}});
  }
}

void Numbers::keep_count(int64_t row, NumberKind kind, int64_t so_far) {
  counts_[size_t(row)] = std::make_unique<LateNumber>(kind, double(so_far));
  rows_[size_t(row)].count = counts_[size_t(row)]->on_device();
}

LateNumber& Numbers::trace(int64_t scalars, int32_t number, NumberKind kind, bool is_inverted, double value) {
  values_.push_back(std::make_unique<LateNumber>(kind, value));
  traced_.push_back({scalars, number, is_inverted, values_.back()->on_device()});
  return *values_.back();
}

LateNumber& Numbers::keep_skip() {
  skip_ = std::make_unique<LateNumber>(NumberKind::float32, 0);
  return *skip_;
}

DeviceWork Numbers::work(const std::vector<Job>& jobs, const std::vector<Scalars>& given, void* stream) const {
  const void* const skip = skip_ ? skip_->memory.data() : nullptr;
  return {jobs, rows_, given, traced_, static_cast<const float*>(skip), stream};
}

std::optional<std::vector<Scalars>> Numbers::step(const std::vector<Scalars>& given) {
  if (skip_ && skip_->value != 0) return std::nullopt;
  std::vector<Scalars> by_row;
  for (size_t i = 0; i < rows_.size(); ++i) {
    Scalars& own = by_row.emplace_back(given[size_t(rows_[i].scalars)]);
    if (LateNumber* const count = counts_[i].get()) {
      own.count = int64_t(++count->value);
      own.is_initial_step = count->value == 1;
    }
    for (size_t k = 0; k < traced_.size(); ++k) {
      if (traced_[k].scalars != rows_[i].scalars) continue;
      const double value = values_[k]->value;
      number_of(own, traced_[k].number) = traced_[k].is_inverted ? 1 / value : value;
    }
  }
  return by_row;
}

std::string Numbers::images() const {
  std::string all;
  for (const auto& count : counts_) {
    if (count) all.append(count->memory.data(), count->memory.size());
  }
  return all;
}

Twins::Twins(StandIn& runtime, int rule, std::vector<int> layouts, int64_t tensors, int64_t rows, uint64_t seed)
    : random(seed),
      numbers(rule, rows, random),
      runtime_(runtime),
      rule_(rule),
      here_(make_streams(rule, layouts, tensors, rows, seed)),
      there_(make_streams(rule, layouts, tensors, rows, seed)) {}

Step Twins::take(int percent) {
  Step step{{}, {}, numbers.scalars};
  for (size_t i = 0; i < here_.size(); ++i) {
    Part here{here_[i].layout(), {}}, there = here;
    for (size_t k = 0; k < here_[i].segments().size(); ++k) {
      if (!random.chance(percent)) continue;
      add(here, here_[i].segments()[k]);
      add(there, there_[i].segments()[k]);
    }
    if (here.segments.empty()) continue;
    step.here.push_back(std::move(here));
    step.there.push_back(std::move(there));
  }
  return step;
}

void Twins::step_here(const Step& step) {
  const auto scalars = numbers.step(step.scalars);
  if (!scalars) return;
  const DefaultFloatingPoint mode;
  for (const Part& part : step.here)
    targets().back()->kernels[rule_][part.layout](call_of(part, *scalars), 0, elements_of(part));
}

void Twins::prepare_there(device::Queue& queue, const Step& step, const FoundNorm* limits) {
  std::vector<Call> calls;
  std::vector<Job> jobs;
  calls.reserve(step.there.size());
  for (const Part& part : step.there) {
    calls.push_back(call_of(part, step.scalars));
    jobs.push_back({part.layout, nullptr, &calls.back(), elements_of(part)});
  }
  DeviceWork work = numbers.work(jobs, step.scalars, runtime_.stream());
  work.limits = limits;
  queue.prepare(work);
}

void Twins::step(device::Queue& queue, const Step& step) {
  prepare_there(queue, step);
  queue.launch();
  step_here(step);
}

void Twins::renew_gradients() {
  for (Streams& streams : here_) streams.renew_gradients();
  for (Streams& streams : there_) streams.renew_gradients();
}

std::vector<std::string> Twins::images_there() {
  std::vector<std::string> all = {numbers.images()};
  for (const Streams& streams : there_) {
    for (std::string& image : streams.images()) all.push_back(std::move(image));
  }
  return all;
}

void Twins::check_alike() {
  runtime_.synchronize();
  for (size_t i = 0; i < here_.size(); ++i)
    check(here_[i].images() == there_[i].images(), "a device's steps have the bits of the CPU's");
  for (int64_t row = 0; row < numbers.rows(); ++row) {
    LateNumber* const count = numbers.count(row);
    if (!count) continue;
    const LateNumber counted(count->kind, count->value);
    check(counted.memory == count->memory, "a device counts its steps");
  }
}

}  // namespace flatstep::testing
