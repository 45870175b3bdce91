// The OpenMP runtime that another library of the process has loaded, and the number of threads that OpenMP would use.
// For work.cpp.
#pragma once

namespace flatstep {

// flatstep links with no OpenMP: a second runtime beside torch's would keep that one's threads from the processors. It
// calls the runtime that is there, by the interface that GNU's, LLVM's and Intel's have in common.
struct OpenMP {
  void (*parallel)(void (*region)(void*), void* argument, unsigned threads, unsigned flags);
  int (*thread_num)();
};

// Null while there is none. Looked up until one is found, since torch may be imported later.
const OpenMP* loaded_openmp();

// OMP_NUM_THREADS, or as many as there are processors for this process.
int openmp_num_threads();

}  // namespace flatstep
