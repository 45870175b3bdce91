// Tiles: how many numbers a kernel handles, and asks memory for, at a time. Included by sweeps and by cpu/limit.h.
#pragma once

#include "../call.h"
#include "../host_device.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// As many as fill this much of the parameter.
constexpr int tile_bytes = 256;
template <class Storage>
constexpr int tile_size = tile_bytes / int(sizeof(Storage));

// How many elements ahead each stream is asked for: the hardware follows a few streams well, seven or more badly.
constexpr int64_t prefetch_ahead = 512;

// Asks for `bytes` of a stream.
FLATSTEP_FN void prefetch(const char* from, int bytes, bool will_write) {
  for (int offset = 0; offset < bytes; offset += cache_line) {
    if (will_write) {
      __builtin_prefetch(from + offset, 1);
    } else {
      __builtin_prefetch(from + offset, 0);
    }
  }
}

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
