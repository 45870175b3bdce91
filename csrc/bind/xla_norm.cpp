// See xla_norm.h.
#include "xla_norm.h"

#include <cmath>
#include <deque>
#include <stdexcept>

#include "read_xla.h"

namespace flatstep {

namespace {

namespace ffi = xla::ffi;

const CoreAPI* core;
constexpr int64_t dense = 1;  // the stride of every tensor here
constexpr int64_t words = sizeof(NormBlock) / sizeof(uint32_t);

// Where max_norm is: nowhere, fixed when a program is compiled, or an operand.
enum Limit : int32_t { none, fixed, operand };

using Values = ffi::AnyBuffer;

Values argument(ffi::RemainingArgs args, size_t index) {
  const auto buffer = args.get<Values>(index);
  if (!buffer) reject_xla(buffer.error().message());
  return *buffer;
}

template <class T>
T* written(ffi::RemainingRets rets, size_t index, int64_t count) {
  auto buffer = rets.get<Values>(index);
  if (!buffer || int64_t((*buffer)->element_count()) != count)
    reject_xla("a norm has other results than its operands ask for");
  return static_cast<T*>((*buffer)->untyped_data());
}

bool is_double(const Values& numbers) {
  const bool wide = numbers.element_type() == ffi::DataType::F64;
  if (!wide && numbers.element_type() != ffi::DataType::F32)
    reject_xla("a number of a step is neither float32 nor float64");
  return wide;
}

double number_in(const Values& numbers, int64_t entry) {
  if (entry >= int64_t(numbers.element_count())) reject_xla("a number has another shape");
  return is_double(numbers) ? static_cast<const double*>(numbers.untyped_data())[entry]
                            : double(static_cast<const float*>(numbers.untyped_data())[entry]);
}

// Calls a function that may throw.
template <class F>
ffi::Error carried_out(const F& function) {
  const DefaultFloatingPoint mode;
  try {
    function();
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
}

void square_sums_of(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const Values scales = argument(args, 0);
  const auto entries = int64_t(scales.element_count()), leaves = int64_t(args.size()) - 1;
  auto* const to = written<NormBlock>(rets, 0, entries * leaves * words);
  if (entries == 0) return;
  std::deque<int64_t> counts;  // to which tensors point
  std::vector<ScaledTensor> grads;
  std::vector<NormBlock*> places;  // of their sums
  for (int64_t entry = 0; entry < entries; ++entry) {
    for (int64_t leaf = 0; leaf < leaves; ++leaf) {
      const Values grad = argument(args, size_t(leaf + 1));
      const Dtype dtype = dtype_of(grad.element_type());
      const int64_t count = counts.emplace_back(int64_t(grad.element_count()) / entries);
      if (dtype == Dtype::other) reject_xla("there is no norm of a gradient of this dtype");
      NormBlock* const place = to + entry * leaves + leaf;
      *place = {};
      if (count == 0) continue;  // a shape that was open when the program was exported
      places.push_back(place);
      char* const first = static_cast<char*>(grad.untyped_data()) + entry * count * bytes_of(dtype);
      const Tensor tensor{first, &counts.back(), &dense, 1, dtype, true, {}, nullptr};
      grads.push_back({tensor, number_in(scales, entry)});
    }
  }
  const auto sums = core->square_sums(grads, [&](std::span<const Job> jobs) {
    core->run_on(jobs, int(pool.num_threads()), [&](std::function<void()> task) { pool.Schedule(std::move(task)); });
  });
  for (size_t i = 0; i < places.size(); ++i) *places[i] = sums[i];
}

void add_sums_of(ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const Values sums = argument(args, 0);
  const int64_t terms = sums.dimensions()[0];
  const int64_t count = terms > 0 ? int64_t(sums.element_count()) / terms / words : 0;
  auto* const to = written<NormBlock>(rets, 0, count * words);
  const auto* const from = static_cast<const NormBlock*>(sums.untyped_data());
  std::vector<NormBlock> column(static_cast<size_t>(terms));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t term = 0; term < terms; ++term) column[size_t(term)] = from[term * count + i];
    to[i] = core->sum_in_pairs(column);
  }
}

// All sums of one entry of a batch.
NormBlock sum_of_entry(ffi::RemainingArgs args, size_t begin, int64_t entry, int64_t entries) {
  std::vector<NormBlock> sums;
  for (size_t i = begin; i < args.size(); ++i) {
    const Values part = argument(args, i);
    const int64_t count = int64_t(part.element_count()) / words / entries;
    const auto* const first = static_cast<const NormBlock*>(part.untyped_data()) + entry * count;
    sums.insert(sums.end(), first, first + count);
  }
  return core->sum_in_pairs(sums);
}

void limits_of(ffi::RemainingArgs args, ffi::RemainingRets rets, double max_norm, int32_t limit) {
  const Values scales = argument(args, 0);
  const auto entries = int64_t(scales.element_count());
  auto* const scaled = written<void>(rets, 0, entries);
  auto* const is_finite = written<bool>(rets, 1, entries);
  for (int64_t entry = 0; entry < entries; ++entry) {
    const NormBlock sum = sum_of_entry(args, limit == operand ? 2 : 1, entry, entries);
    GradientLimits limits{{}, false, GradientLimits::Formula::optax};
    if (limit != none) limits.max_norm = limit == operand ? number_in(argument(args, 1), entry) : max_norm;
    const double scale = number_in(scales, entry) * core->factor(limits, std::sqrt(sum.value));
    if (is_double(scales)) {
      static_cast<double*>(scaled)[entry] = scale;
    } else {
      static_cast<float*>(scaled)[entry] = float(scale);
    }
    is_finite[entry] = sum.check == 0;
  }
}

ffi::Error square_sums(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return carried_out([&] { square_sums_of(pool, args, rets); });
}

ffi::Error add_sums(ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return carried_out([&] { add_sums_of(args, rets); });
}

ffi::Error limits(ffi::RemainingArgs args, ffi::RemainingRets rets, double max_norm, int32_t limit) {
  return carried_out([&] { limits_of(args, rets, max_norm, limit); });
}

XLA_FFI_DEFINE_HANDLER(square_sums_handler, square_sums,
                       ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER(add_sums_handler, add_sums, ffi::Ffi::Bind().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER(
    limits_handler, limits,
    ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<double>("max_norm").Attr<int32_t>("limit"));

}  // namespace

XLA_FFI_Handler* const xla_square_sums = square_sums_handler;
XLA_FFI_Handler* const xla_add_sums = add_sums_handler;
XLA_FFI_Handler* const xla_limits = limits_handler;

void set_core_of_norms(const CoreAPI& api) { core = &api; }

}  // namespace flatstep
