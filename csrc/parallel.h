// Who runs a Kernel over its elements on the CPU. The only place that knows OpenMP and fork.
#pragma once

#include "work.h"

namespace flatstep {

// Whose threads carry out large steps. Our own sleep between steps. OpenMP's spin for milliseconds before they sleep,
// which is right beside torch, whose operations run on the same threads, and very wrong beside NumPy, whose matrix
// products leave spinning threads of another kind: then both fight for the processors, and a step of a tenth of a
// millisecond was seen to take 7.
enum class Team { own, openmp };

// Carries out all jobs in one parallel region, split by elements; small totals run on the calling thread.
// `default_threads` is how many to use where nobody chose; 0: as many as num_threads() says.
void run(const Job* jobs, int64_t count, Team team, int default_threads = 0);

bool has_openmp();            // whether this build can use OpenMP's threads; without it the team is our own
int num_threads();            // how many a large step uses
int chosen_threads();         // how many somebody set; 0 where nobody did
void set_num_threads(int n);  // n >= 1
int forks();                  // how many lie between the process that loaded us and this one

}  // namespace flatstep
