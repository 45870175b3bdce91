// The steps of one optimizer on one device: tables for its tensors, uploads, launches. Knows no CUDA: see runtime.h.
#pragma once

#include <optional>

#include "device.h"
#include "launch.h"
#include "norm_tables.h"
#include "staging.h"

namespace flatstep::device {

class Queue : public DeviceQueue {
 public:
  // Without shared kernels it finds no norms, and no step with zeroed gradients can be skipped.
  Queue(Runtime& runtime, Kernels kernels, int rule, int index, const SharedKernels* shared_kernels = nullptr);
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue() override;

  void prepare(const DeviceWork& work) override;
  void launch() override;
  bool is_capturing(void* stream) override;
  void let_follow(void* stream) override;
  void* allocate(size_t bytes, void* stream) override;
  void release(void* memory) noexcept override;
  void wait() noexcept override;
  void copy(void* to, const void* from, size_t bytes, void* stream) override;

 private:
  // One layout's part of a step. Where its tables begin is counted in bytes, tiles in tiles.
  struct Part {
    int layout;
    size_t segments, rows, gradients, walks, coefficients;
    int64_t segment_count, row_count, first_tile, tile_count;
    Tail tail;  // if `has_tail`
    bool has_tail, has_averages;
    size_t averages, updates;
  };

  // What a step reads, first on the host, then on the device.
  struct Tables {
    char *tensors, *tiles, *step, *coefficients;
  };

  void check_is_eager(void* stream, const char* what);
  void gather(const DeviceWork& work);
  void add_part(const Job& job, const DeviceWork& work);
  void add_rest(const DeviceWork& work);
  void add_tail(Part& part, const flatstep::Call& call);
  void reserve(Part& part);
  bool zeroes_when_skipped(const Part& part) const;
  Row row_of(size_t index, const DeviceWork& work);
  int64_t tile_count() const;  // of all parts so far
  Bytes tiles() const;
  void go_over_to(void* stream);
  void place();
  void place_for_capture();
  void launch_norm();
  int64_t* updates_of(const Part& part) const;
  SweepTail tail_of(const Part& part) const;
  void launch(const Part& part);
  void mark_done();

  Runtime& runtime_;
  std::optional<CurrentDevice> at_the_end_;  // the first member, so that the others end with their device current
  Launcher launcher_;
  SharedLauncher shared_launcher_;
  std::vector<bool> loaded_;  // by layout
  int index_;
  void* done_ = nullptr;    // an event: past once the device is done with work that was not captured
  uint64_t stream_id_ = 0;  // in the order of which stream the tables are written and read

  PinnedRing ring_;
  Table tensor_table_, tile_table_, step_table_, coefficient_table_;

  // The step under way.
  std::vector<Part> parts_;
  std::vector<bool> has_counted_;  // by row: whether an earlier part moves its count
  Bytes tensors_, step_;  // segments and rows, which stay the same from step to step as a rule; and all that does not
  size_t coefficient_bytes_;
  size_t scalars_, traced_;  // where they begin in step_
  int64_t traced_count_;
  const float* skip_;
  const FoundNorm* limits_;
  std::optional<NormWork> norm_;
  NormTables norm_tables_;
  void* stream_;
  bool is_captured_ = false;
  Tables placed_;

  // What lies in the tables; nothing where that is not known.
  Bytes placed_tensors_, placed_step_;
};

}  // namespace flatstep::device
