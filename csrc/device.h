// A step on a device with memory of its own: what front ends ask for, and who carries it out. Implemented by extension
// modules beside the core; PODs and one interface, so that neither side links the other.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "norm_blocks.h"
#include "work.h"

namespace flatstep {

// As wide as what stands beside it: tables are compared byte by byte, and so have no padding.
enum class NumberKind : int64_t { float32, float64, int32, int64 };

// A number that lies in device memory.
struct DeviceNumber {
  void* data;
  NumberKind kind;
};

// A number of a row of Scalars that is read from device memory when the step runs there: Scalars' doubles are counted
// from learning_rate on, hyperparameters last.
struct Traced {
  int64_t scalars;
  int32_t number;
  int32_t is_inverted;  // one over what lies there: the scale of a loss undone
  DeviceNumber value;
};

// What the coefficients of some segments are made of, in any job. No two rows count in the same place.
struct Row {
  int64_t scalars;
  DeviceNumber count;  // updates so far, which the step counts up; without data, Scalars::count says it
};

// What a device has found out about gradients, in its memory. Zero before the first step.
struct FoundNorm {
  double norm;      // of the last step that no flag from outside has skipped
  double factor;    // by which a step multiplies its gradients
  double skipped;   // how many steps were skipped because a number was not finite
  float skips;      // anything but 0 and the step is skipped
  float is_unused;  // which makes the size that of four doubles
};

struct NormPiece;  // see norm.h

// Gradients of which a device finds the norm, before any step that asks for it.
struct NormWork {
  const std::vector<NormPiece>& pieces;
  const std::vector<Scalars>& scalars;  // of which grad_scale counts
  DeviceNumber scale;                   // of a loss: gradients are divided by it. Without data, grad_scale says it
  NormKind kind;
  bool clips, skips_nonfinite;
  ClipFormula formula;
  double max_norm;
  FoundNorm* found;  // in device memory
};

// One device's part of a step. A segment's `scalars` is its index into `rows`.
struct DeviceWork {
  const std::vector<Job>& jobs;
  const std::vector<Row>& rows;
  const std::vector<Scalars>& scalars;
  const std::vector<Traced>& traced;
  const float* skip;  // in device memory; anything there but 0 and nothing is stepped or counted. May be null
  void* stream;
  const NormWork* norm = nullptr;     // found before the rest; null: none is
  const FoundNorm* limits = nullptr;  // whose factor and flag the step takes; null: none
};

// A device has no memory for what it was asked, and nothing has changed.
struct OutOfDeviceMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The steps of one optimizer on one device, in the order in which they are asked for, and memory for its state. Steps
// never wait for the device.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;

  // All that can fail for want of memory, and then throws OutOfDeviceMemory. What it got ready is launched by `launch`,
  // or replaced by the next call.
  virtual void prepare(const DeviceWork& work) = 0;
  virtual void launch() = 0;

  virtual bool is_capturing(void* stream) = 0;  // into a graph, to be replayed later

  // What a stream is given from now on comes after all that the queue was given.
  virtual void let_follow(void* stream) = 0;

  // Memory for state, zero at first, in the order of a stream; or throws OutOfDeviceMemory. The one who releases it is
  // done with it, but for the queue.
  virtual void* allocate(size_t bytes, void* stream) = 0;
  virtual void release(void* memory) noexcept = 0;

  // The host goes on once the device is done with all that the queue was given.
  virtual void wait() noexcept = 0;

  // Between the host and the device, after all that the queue and the stream were given. Returns when it is done.
  virtual void copy(void* to, const void* from, size_t bytes, void* stream) = 0;
};

// What a module offers to the core in a capsule. The module has compared its version and build with the core's.
struct DeviceBackend {
  int32_t type;  // as DLPack numbers them
  std::unique_ptr<DeviceQueue> (*make)(int rule, int index);
  void* (*enter)(int index);    // that device is current for the thread from here on; returns what was before,
  void (*leave)(void* before);  // which is current again from here on
};

constexpr const char* device_backend_name = "flatstep.device_backend";

}  // namespace flatstep
