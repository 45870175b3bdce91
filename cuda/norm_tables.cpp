// See norm_tables.h.
#include "norm_tables.h"

#include "norm.h"

namespace flatstep::device {

void NormTables::gather(const NormWork& work, int64_t first_tile, Bytes& tensors, Bytes& step, size_t& written_bytes) {
  std::vector<NormSegment> segments;
  std::vector<Gradient> gradients;
  std::vector<int64_t> walks;
  std::vector<double> scales;
  unit_count_ = group_count_ = 0;
  first_tile_ = first_tile;
  for (const NormPiece& piece : work.pieces) {
    const flatstep::Segment& own = piece.segment;
    segments.push_back({own.count, unit_count_, group_count_, int32_t(piece.dtype), int32_t(own.scalars)});
    gradients.push_back({own.grad, append_walk(walks, own.walk)});
    unit_count_ += units_of(own.count);
    group_count_ += groups_of(own.count);
  }
  for (const Scalars& scalars : work.scalars) scales.push_back(scalars.grad_scale);
  segment_count_ = int64_t(segments.size());
  append(tensors, &segment_count_, 1);  // what follows is no table of a sweep
  segments_ = append(tensors, segments);
  gradients_ = append(step, gradients);
  walks_ = append(step, walks);
  scales_ = append(step, scales);
  units_ = written_bytes;
  groups_ = units_ + size_t(unit_count_) * sizeof(NormBlock);
  written_bytes = groups_ + size_t(group_count_) * sizeof(NormBlock);
}

void NormTables::add_tiles(std::vector<Tile>& tiles, const Bytes& tensors) const {
  const auto* const segments = reinterpret_cast<const NormSegment*>(tensors.data() + segments_);
  for (const auto count_of : {units_of, groups_of}) {
    for (int64_t i = 0; i < segment_count_; ++i) {
      const int64_t count = count_of(segments[i].count);
      for (int64_t index = 0; index < count; ++index) tiles.push_back({int32_t(i), int32_t(index)});
    }
  }
}

Norm NormTables::on_device(const NormWork& work, const char* tensors, const char* tiles, const char* step,
                           char* written) const {
  const Tile* const units = reinterpret_cast<const Tile*>(tiles) + first_tile_;
  return {units,
          units + unit_count_,
          unit_count_,
          group_count_,
          segment_count_,
          reinterpret_cast<const NormSegment*>(tensors + segments_),
          reinterpret_cast<const Gradient*>(step + gradients_),
          reinterpret_cast<const int64_t*>(step + walks_),
          reinterpret_cast<const double*>(step + scales_),
          work.scale,
          reinterpret_cast<NormBlock*>(written + units_),
          reinterpret_cast<NormBlock*>(written + groups_),
          work.kind,
          work.formula,
          work.clips,
          work.skips_nonfinite,
          work.max_norm,
          nullptr,
          work.found};
}

}  // namespace flatstep::device
