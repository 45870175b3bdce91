// Arrays that libraries hand each other by DLPack, in a capsule, with a function that gives them back. For csrc/bind
// only. The layouts are fixed by DLPack 1.0 and by what was before it.
#pragma once

#include "exchange.h"

namespace flatstep::dlpack {

struct Managed {
  TensorView view;
  void* context;
  void (*release)(Managed*);

  // The names of the capsule, before and after somebody took what is in it.
  static constexpr const char *name = "dltensor", *used_name = "used_dltensor";
};

struct VersionedManaged {
  uint32_t major = 1, minor = 0;
  void* context;
  void (*release)(VersionedManaged*);
  uint64_t flags;
  TensorView view;

  static constexpr const char *name = "dltensor_versioned", *used_name = "used_dltensor_versioned";
};

constexpr uint64_t read_only_flag = 1, copy_flag = 2;
constexpr int cuda_managed = 13;  // memory of both the processor and the devices

// Streams as numbers: these two have one of their own, all others are pointers.
constexpr int64_t legacy_stream = 1, no_stream = -1;

}  // namespace flatstep::dlpack
