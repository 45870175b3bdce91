// Numbers of 16 bits by the device's own conversions, where it has them. Included by sweep.cuh alone.
#pragma once

#include "formats/bf16.h"
#include "formats/f16.h"

namespace flatstep::inline FLATSTEP_NAMESPACE {

// A format's tile as a device reads and writes it. The device's instructions round to nearest, ties to even, and keep
// denormals, so they give the bits of the format itself; only a NaN may differ from it in its payload. The format takes
// eight integer instructions to round to bfloat16, and more than twenty to round to float16.
template <class Format>
struct DeviceTile : Format::Tile {
  using Format::Tile::Tile;
};

template <>
struct DeviceTile<F16> : F16::Tile {
  using F16::Tile::Tile;

  FLATSTEP_FN float load(int k) const {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(numbers[k]));
    return value;
#else
    return F16::Tile::load(k);
#endif
  }

  FLATSTEP_FN void store(int k, float value) const {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(numbers[k]) : "f"(value));
#else
    F16::Tile::store(k, value);
#endif
  }
};

// To read a bfloat16 takes one shift, which is the format's own way.
template <>
struct DeviceTile<BF16> : BF16::Tile {
  using BF16::Tile::Tile;

  FLATSTEP_FN void store(int k, float value) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(numbers[k]) : "f"(value));
#else
    BF16::Tile::store(k, value);
#endif
  }
};

}  // namespace flatstep::inline FLATSTEP_NAMESPACE
