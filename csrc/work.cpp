// Parts, chunks and the floating-point mode. See work.h.
#include "work.h"

#include <algorithm>

#include "floating_point.h"

namespace flatstep {

namespace {

constexpr int64_t elements_worth_a_thread = 16384;
constexpr int64_t chunk = 16384;  // elements that a thread takes at a time: whole tiles, some tens of microseconds

}  // namespace

Work::Work(const Job* jobs, int64_t count) : jobs_(jobs), job_count_(count) {
  for (const Job* job = jobs; job != jobs + count; ++job) elements_ += job->elements;
}

int Work::cut(int most_threads) {
  part_count_ = int(std::clamp<int64_t>(elements_ / elements_worth_a_thread, 1, most_threads));
  if (part_count_ == 1) return 1;
  parts_.reset(new Part[size_t(part_count_)]);
  const int64_t chunks = (elements_ + chunk - 1) / chunk;
  for (int i = 0; i < part_count_; ++i) {
    parts_[size_t(i)].next = chunks * i / part_count_ * chunk;
    parts_[size_t(i)].last = std::min(chunks * (i + 1) / part_count_ * chunk, elements_);
  }
  return part_count_;
}

void Work::carry_out(int thread) {
  const DefaultFloatingPoint mode;
  if (!parts_) return run_range(0, elements_);
  for (int offset = 0; offset < part_count_; ++offset) {
    Part& part = parts_[size_t((thread + offset) % part_count_)];
    while (true) {
      const int64_t first = part.next.fetch_add(chunk, std::memory_order_relaxed);
      if (first >= part.last) break;
      run_range(first, std::min(first + chunk, part.last));
    }
  }
}

// The elements first <= i < last of the jobs laid end to end.
void Work::run_range(int64_t first, int64_t last) const {
  int64_t start = 0;
  for (const Job* job = jobs_; job != jobs_ + job_count_; start += job->elements, ++job) {
    const int64_t from = std::max(first - start, int64_t{0}), to = std::min(last - start, job->elements);
    if (from < to) job->kernel(*job->call, from, to);
  }
}

}  // namespace flatstep
