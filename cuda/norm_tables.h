// The tables of a norm: gradients -> what the kernels of device_norm.h are launched with. For queue.cpp.
#pragma once

#include "device_norm.h"
#include "tables.h"

namespace flatstep::device {

class NormTables {
 public:
  // Appends to the tables that stay the same from step to step as a rule, to those that do not, and to the number of
  // bytes that kernels write. `first_tile` is how many tiles come before its own.
  void gather(const NormWork& work, int64_t first_tile, Bytes& tensors, Bytes& step, size_t& written_bytes);

  void add_tiles(std::vector<Tile>& tiles, const Bytes& tensors) const;  // of all units, then of all groups

  // The same where those tables are on the device.
  Norm on_device(const NormWork& work, const char* tensors, const char* tiles, const char* step, char* written) const;

 private:
  size_t segments_, gradients_, walks_, scales_, units_, groups_;  // where they begin
  int64_t segment_count_, unit_count_, group_count_, first_tile_;
};

}  // namespace flatstep::device
