// What a step does besides its update, tile by tile: PODs. Included by call.h's users that know of it: step.h, sweeps.
#pragma once

#include "call.h"

namespace flatstep {

// How the average of a parameter goes on: as torch.lerp, begun with a copy, or as b * average + (1 - b) * param.
enum class AverageForm { interpolated, weighted };

struct Tail {
  FinishTile finish;  // elements that were just updated, counted from the segment's start; `updates` are its own
  int zeroed_bytes;   // item size of the gradient, which becomes zero; 0 where it stays
  AverageForm form;
  double decay;
  bool average_in_own_dtype = false;  // the parameter's; else that in which steps compute
};

}  // namespace flatstep
