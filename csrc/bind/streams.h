// On which stream another library works now. For csrc/bind only.
#pragma once

#include "bind.h"
#include "exchange.h"
#include "tensors.h"

namespace flatstep {

namespace dlpack {

// What a capsule of that API holds, in the version that we know; null where it has none. Raises for other objects.
const ExchangeAPI* known_version_of(nb::handle capsule);

}  // namespace dlpack

// The stream on which an array's library launches its work on a device: as its type says in C, or else the array
// itself, or else the one that others wait for.
void* current_stream(nb::handle array, const Device& device);

}  // namespace flatstep
