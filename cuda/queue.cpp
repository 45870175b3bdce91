// See queue.h.
#include "queue.h"

#include <algorithm>
#include <stdexcept>

#include "describe.h"

namespace flatstep::device {

namespace {

Segment on_device(const flatstep::Segment& segment, int32_t row) {
  Segment own{};
  own.count = segment.count;
  own.param = segment.param;
  std::memcpy(own.state, segment.state, sizeof own.state);
  own.row = row;
  own.makes_update = segment.makes_update;
  return own;
}

// By their scalars, among which each thread of a preparation looks for its own.
std::vector<Traced> in_order(std::vector<Traced> traced) {
  if (!std::ranges::is_sorted(traced, {}, &Traced::scalars)) std::ranges::stable_sort(traced, {}, &Traced::scalars);
  return traced;
}

int param_bytes(int layout) { return bytes_of(layouts()[size_t(layout)].param); }

}  // namespace

Queue::Queue(Runtime& runtime, Kernels kernels, int rule, int index, const SharedKernels* shared_kernels)
    : runtime_(runtime),
      launcher_(runtime, kernels, rule, index),
      shared_launcher_(runtime, shared_kernels, index),
      loaded_(layouts().size()),
      index_(index),
      ring_(runtime),
      tensor_table_(runtime),
      tile_table_(runtime),
      step_table_(runtime),
      coefficient_table_(runtime) {
  const CurrentDevice current(runtime_, index_);
  done_ = runtime_.make_event();
}

// What was prepared and never launched is not past with the last launch.
Queue::~Queue() {
  try {
    at_the_end_.emplace(runtime_, index_);
  } catch (const std::exception&) {  // then nothing is left of it
  }
  ring_.wait();
  runtime_.wait(done_);
  runtime_.release_event(done_);
  runtime_.release_dropped();
}

bool Queue::is_capturing(void* stream) {
  const CurrentDevice current(runtime_, index_);
  return runtime_.is_capturing(stream);
}

void Queue::let_follow(void* stream) {
  const CurrentDevice current(runtime_, index_);
  runtime_.wait_in_stream(stream, done_);
}

void Queue::check_is_eager(void* stream, const char* what) {
  if (!runtime_.is_capturing(stream)) return;
  throw std::runtime_error(std::string(what) + " cannot become part of a CUDA graph; do it outside of the capture");
}

void* Queue::allocate(size_t bytes, void* stream) {
  const CurrentDevice current(runtime_, index_);
  check_is_eager(stream, "making an optimizer's state");
  go_over_to(stream);
  void* const memory = runtime_.allocate(bytes, stream);
  try {
    runtime_.clear(memory, bytes, stream);
    runtime_.record(done_, stream);
  } catch (...) {
    runtime_.release(memory, stream);
    throw;
  }
  return memory;
}

void Queue::release(void* memory) noexcept {
  try {
    const CurrentDevice current(runtime_, index_);
    runtime_.wait(done_);
    runtime_.release_lasting(memory);
  } catch (const std::exception&) {  // the device is lost, and its memory with it
  }
}

void Queue::wait() noexcept {
  try {
    const CurrentDevice current(runtime_, index_);
    runtime_.wait(done_);
  } catch (const std::exception&) {  // the next step says why
  }
}

void Queue::copy(void* to, const void* from, size_t bytes, void* stream) {
  const CurrentDevice current(runtime_, index_);
  check_is_eager(stream, "copying an optimizer's arrays");
  runtime_.wait_in_stream(stream, done_);
  runtime_.copy_and_wait(to, from, bytes, stream);
}

void Queue::prepare(const DeviceWork& work) {
  const CurrentDevice current(runtime_, index_);
  gather(work);
  if (parts_.empty() && !norm_) return;
  if (norm_ || std::ranges::any_of(parts_, [this](const Part& part) { return zeroes_when_skipped(part); }))
    shared_launcher_.load();
  for (const Part& part : parts_) {
    if (!loaded_[size_t(part.layout)]) launcher_.load(part.layout);
    loaded_[size_t(part.layout)] = true;
  }
  is_captured_ = runtime_.is_capturing(stream_);
  if (is_captured_) {
    place_for_capture();
    return;
  }
  go_over_to(stream_);
  try {
    place();
  } catch (...) {
    mark_done();  // some memory may be on its way
    throw;
  }
}

void Queue::gather(const DeviceWork& work) {
  parts_.clear();
  tensors_.clear();
  step_.clear();
  coefficient_bytes_ = 0;
  has_counted_.assign(work.rows.size(), false);
  stream_ = work.stream;
  skip_ = work.skip;
  limits_ = work.limits;
  for (const Job& job : work.jobs) add_part(job, work);
  add_rest(work);
  norm_.reset();
  if (work.norm) {
    norm_.emplace(*work.norm);
    norm_tables_.gather(*norm_, tile_count(), tensors_, step_, coefficient_bytes_);
  }
  scalars_ = append(step_, work.scalars);
  traced_ = append(step_, in_order(work.traced));
  traced_count_ = int64_t(work.traced.size());
}

int64_t Queue::tile_count() const { return parts_.empty() ? 0 : parts_.back().first_tile + parts_.back().tile_count; }

void Queue::add_part(const Job& job, const DeviceWork& work) {
  Part part{};
  part.layout = job.layout;
  part.segment_count = job.call->segment_count;
  part.first_tile = tile_count();
  std::vector<Segment> segments;
  std::vector<Gradient> gradients;
  std::vector<Row> rows;
  std::vector<int64_t> walks;
  std::vector<int32_t> own_row(work.rows.size(), -1);  // by its index among all rows
  for (const flatstep::Segment* s = job.call->segments; s != job.call->segments + part.segment_count; ++s) {
    int32_t& row = own_row[size_t(s->scalars)];
    if (row < 0) {
      row = int32_t(rows.size());
      rows.push_back(row_of(size_t(s->scalars), work));
    }
    segments.push_back(on_device(*s, row));
    gradients.push_back({s->grad, append_walk(walks, s->walk)});
    part.tile_count +=
        tiles_of(s->count, phase_of(s->param, param_bytes(job.layout)), launcher_.kernel(job.layout).tile_elements);
  }
  part.row_count = int64_t(rows.size());
  append(tensors_, &part.layout, 1);  // tiles depend on it
  part.segments = append(tensors_, segments);
  part.rows = append(tensors_, rows);
  part.gradients = append(step_, gradients);
  part.walks = append(step_, walks);
  add_tail(part, *job.call);
  reserve(part);
  parts_.push_back(part);
}

void Queue::add_tail(Part& part, const flatstep::Call& call) {
  part.has_tail = part.segment_count > 0 && call.tail;
  if (!part.has_tail) return;
  part.tail = *call.tail;
  std::vector<void*> averages;
  for (int64_t i = 0; i < part.segment_count; ++i) {
    averages.push_back(call.segments[i].average);
    part.has_averages = part.has_averages || call.segments[i].average;
  }
  if (part.has_averages) part.averages = append(tensors_, averages);
}

// A row's count moves once a step, however many parts have the row.
Row Queue::row_of(size_t index, const DeviceWork& work) {
  const flatstep::Row& row = work.rows[index];
  const bool moves_count = !has_counted_[index];
  has_counted_[index] = true;
  return {row.scalars, row.count, moves_count};
}

// Rows of tensors without elements, which count all the same: prepared as if for layout 0, which every rule has.
void Queue::add_rest(const DeviceWork& work) {
  std::vector<Row> rows;
  for (size_t i = 0; i < work.rows.size(); ++i) {
    if (!has_counted_[i] && work.rows[i].count.data) rows.push_back(row_of(i, work));
  }
  if (rows.empty()) return;
  Part part{};
  part.first_tile = tile_count();
  part.row_count = int64_t(rows.size());
  part.rows = append(tensors_, rows);
  reserve(part);
  parts_.push_back(part);
}

// Memory for what a preparation writes.
void Queue::reserve(Part& part) {
  const auto take = [this](int64_t bytes) {
    constexpr size_t alignment = 16;
    const size_t begin = coefficient_bytes_;
    coefficient_bytes_ += (size_t(bytes) + alignment - 1) / alignment * alignment;
    return begin;
  };
  part.coefficients = take(part.row_count * launcher_.kernel(part.layout).coefficient_bytes);
  if (part.has_averages) part.updates = take(part.row_count * int64_t(sizeof(int64_t)));
}

bool Queue::zeroes_when_skipped(const Part& part) const {
  const bool may_be_skipped = skip_ || (limits_ && (!norm_ || norm_->skips_nonfinite));
  return may_be_skipped && part.has_tail && part.tail.zeroed_bytes > 0;
}

Bytes Queue::tiles() const {
  std::vector<Tile> tiles;
  for (const Part& part : parts_) {
    const auto* segment = reinterpret_cast<const Segment*>(tensors_.data() + part.segments);
    for (int64_t i = 0; i < part.segment_count; ++i, ++segment)
      add_tiles(tiles, int32_t(i), segment->count, phase_of(segment->param, param_bytes(part.layout)),
                launcher_.kernel(part.layout).tile_elements);
  }
  if (norm_) norm_tables_.add_tiles(tiles, tensors_);
  Bytes bytes;
  append(bytes, tiles);
  return bytes;
}

// Nobody else orders the steps of two streams that have no tensor in common: the tables are the queue's own. What was
// prepared and never launched is past with its uploads.
void Queue::go_over_to(void* stream) {
  const uint64_t id = runtime_.stream_id(stream);
  if (id == stream_id_) return;
  runtime_.wait_in_stream(stream, done_);
  ring_.wait_in_stream(stream);
  stream_id_ = id;
}

void Queue::place() {
  ring_.reserve(std::max(tensors_.size(), step_.size()));
  placed_.coefficients = coefficient_table_.reserve(coefficient_bytes_, stream_);
  if (tensors_ != placed_tensors_) {
    placed_tensors_.clear();
    placed_.tiles = tile_table_.write(tiles(), ring_, stream_);
    placed_.tensors = tensor_table_.write(tensors_, ring_, stream_);
    placed_tensors_ = tensors_;
  }
  if (step_ != placed_step_) {
    placed_step_.clear();
    placed_.step = step_table_.write(step_, ring_, stream_);
    placed_step_ = step_;
  }
  placed_.tensors = tensor_table_.memory();
  placed_.tiles = tile_table_.memory();
  placed_.step = step_table_.memory();
}

// What a graph reads at every replay is written once, and is the graph's own: it may be replayed after the queue is
// gone.
void Queue::place_for_capture() {
  Bytes all;
  const size_t tensors = append(all, tensors_), tiles = append(all, this->tiles()), step = append(all, step_);
  const size_t coefficients = append(all, Bytes());
  runtime_.release_dropped();
  auto* const memory = static_cast<char*>(runtime_.allocate_for_graph(coefficients + coefficient_bytes_, stream_));
  runtime_.copy_now(memory, all.data(), all.size());
  placed_ = {memory + tensors, memory + tiles, memory + step, memory + coefficients};
}

void Queue::launch() {
  if (parts_.empty() && !norm_) return;
  const CurrentDevice current(runtime_, index_);
  try {
    if (norm_) launch_norm();
    for (const Part& part : parts_) launch(part);
  } catch (...) {
    mark_done();  // some may have been launched
    throw;
  }
  mark_done();
}

void Queue::launch_norm() {
  Norm norm = norm_tables_.on_device(*norm_, placed_.tensors, placed_.tiles, placed_.step, placed_.coefficients);
  norm.skip = skip_;
  shared_launcher_.launch(norm, stream_);
}

int64_t* Queue::updates_of(const Part& part) const {
  return reinterpret_cast<int64_t*>(placed_.coefficients + part.updates);
}

SweepTail Queue::tail_of(const Part& part) const {
  if (!part.has_tail) return {};
  SweepTail tail{part.tail.zeroed_bytes,
                 int32_t(part.tail.form),
                 part.tail.average_in_own_dtype,
                 part.tail.decay,
                 nullptr,
                 nullptr};
  if (part.has_averages) {
    tail.averages = reinterpret_cast<void* const*>(placed_.tensors + part.averages);
    tail.updates = updates_of(part);
  }
  return tail;
}

void Queue::launch(const Part& part) {
  const float* const skip = limits_ ? &limits_->skips : skip_;
  const Preparation preparation{reinterpret_cast<const Row*>(placed_.tensors + part.rows),
                                part.row_count,
                                reinterpret_cast<const Scalars*>(placed_.step + scalars_),
                                reinterpret_cast<const Traced*>(placed_.step + traced_),
                                traced_count_,
                                placed_.coefficients + part.coefficients,
                                skip,
                                limits_ ? &limits_->factor : nullptr,
                                part.has_averages ? updates_of(part) : nullptr};
  const Sweep sweep{reinterpret_cast<const Tile*>(placed_.tiles) + part.first_tile,
                    part.tile_count,
                    reinterpret_cast<const Segment*>(placed_.tensors + part.segments),
                    reinterpret_cast<const Gradient*>(placed_.step + part.gradients),
                    reinterpret_cast<const int64_t*>(placed_.step + part.walks),
                    placed_.coefficients + part.coefficients,
                    skip,
                    tail_of(part)};
  launcher_.launch(part.layout, preparation, sweep, stream_);
  if (zeroes_when_skipped(part))
    shared_launcher_.launch_zeros(sweep, launcher_.kernel(part.layout).tile_elements, stream_);
}

void Queue::mark_done() {
  if (!is_captured_) runtime_.record(done_, stream_);
}

}  // namespace flatstep::device
