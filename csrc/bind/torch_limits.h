// What a step of torch tensors asks of its gradients, and their norm: on the host, with that of other processes, or on
// a device. For torch_step.cpp only.
#pragma once

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <tuple>
#include <vector>

#include "describe.h"
#include "device_limits.h"
#include "read_torch.h"
#include "torch_params.h"

namespace flatstep {

class TorchLimits {
 public:
  // The largest norm; whether gradients that are not finite skip the step; by position, the part of the norm in which a
  // parameter's gradient counts (empty: there is one); and a function that combines the totals of the parts, and
  // whether all numbers are finite, with those of other processes (or None). It returns the norm and whether all
  // numbers are finite everywhere. Last, for gradients on a device, four float64s there (see FoundNorm), else None.
  using Asked = std::tuple<std::optional<double>, bool, std::vector<size_t>, nb::object, nb::object>;

  void begin(const std::optional<Asked>& asked, TorchReader& reader) {
    are_set_ = asked.has_value();
    found_.reset();
    if (!are_set_) return;
    const auto& [max_norm, skips_nonfinite, part_of_each, combine, found] = *asked;
    rule_ = {max_norm, skips_nonfinite, GradientLimits::Formula::torch};
    combine_ = combine;
    part_of_each_ = part_of_each;
    norms_.resize(part_of_each.empty() ? 1 : *std::ranges::max_element(part_of_each) + 1);
    for (GradientNorm& part : norms_) part.begin();
    if (found.is_none()) return;
    Tensor own;
    if (!reader.read(found, own) || own.dtype != Dtype::float64 || element_count(own) != 4 || !is_contiguous(own))
      throw nb::type_error("expected four float64s");
    found_ = own;
  }

  bool are_set() const { return are_set_; }
  bool are_for_host() const { return are_set_ && !found_; }
  const GradientLimits& rule() const { return rule_; }

  // Throws ArgumentError where the gradient does not lie with the others.
  void add(const Parameter& parameter, double scale, const TorchParams& params) {
    if (params.is_processor() == found_.has_value() || (found_ && found_->device != params.device)) {
      throw ArgumentError{Operand::param, parameter.index,
                          "is on " + name_of(params.device) +
                              ", but max_norm and skip_nonfinite need all gradients in one memory; make an optimizer "
                              "for the parameters of each device"};
    }
    const size_t part = part_of_each_.empty() ? 0 : part_of_each_.at(size_t(parameter.index));
    norms_[part].add(parameter.grad, scale);
  }

  // Called with the interpreter unlocked, when nothing is left to check.
  GradientNorm::Result find(const Target& target, int threads) {
    GradientNorm::Result found{};
    std::vector<double> totals;
    bool is_finite = true;
    for (GradientNorm& part : norms_) {
      found = part.find(target, NormKind::two, Team::openmp, threads);
      totals.push_back(found.total);
      is_finite = is_finite && found.is_finite;
    }
    if (combine_.is_none()) return found;
    const nb::gil_scoped_acquire lock;
    std::tie(found.value, found.is_finite) = nb::cast<std::pair<double, bool>>(combine_(totals, is_finite));
    return found;
  }

  // The first of those on the device finds the norm, before any of them steps.
  void limit_on_device(std::deque<TorchParams>& all, const std::vector<Scaling>& scalings) {
    if (!found_) return;
    auto* const found = static_cast<FoundNorm*>(found_->data);
    bool is_found = false;
    for (const bool is_idle : {false, true}) {
      for (size_t i = 0; i < all.size(); ++i) {
        if (all[i].device != found_->device || all[i].is_idle() != is_idle || is_found) continue;
        const NormWork work = norm_work(norms_.front(), rule_, scalings[i].scale_number(), found);
        all[i].limit(found, &work);
        is_found = true;
      }
    }
    for (TorchParams& params : all) {
      if (params.device == found_->device && !params.limits) params.limit(found, nullptr);
    }
  }

  // Drops what was borrowed for the step.
  void end() { combine_ = nb::none(); }

 private:
  bool are_set_ = false;
  GradientLimits rule_{};
  std::vector<size_t> part_of_each_;
  nb::object combine_ = nb::none();
  std::optional<Tensor> found_;  // where a device keeps what it finds out about gradients
  std::deque<GradientNorm> norms_;
};

}  // namespace flatstep
