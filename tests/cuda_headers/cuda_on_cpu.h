// CUDA C++ on the CPU: enough of it to run the general path of kernels/*.cu in tests, with an ordinary compiler.
//
// Every CUDA thread of a block is a fiber; blocks run one after another. A fiber runs until it needs another one
// (a barrier, a shuffle, a tensor-core product) or ends.
//
// Emulated
//   threadIdx, blockIdx, blockDim, gridDim in three dimensions; __shared__ (static, and `extern`, which
//   cuda_build.py rewrites); __syncthreads and its _count/_and/_or; __syncwarp, __shfl*_sync, __ballot/any/all_sync,
//   __match_any_sync, __reduce_*_sync, for subsets of a warp as well; atomics; half and bfloat16 with rounding to
//   nearest even after every operation; nvcuda::wmma with half, bfloat16, float and double; the usual intrinsics.
// Caught, as an error that names threads and lines
//   threads at different barriers; a thread that leaves while others wait; lanes of a mask that never arrive, or have
//   left; shuffles from lanes outside the mask; writes past the dynamic shared memory. Shared memory begins as NaN (all
//   bits set) in every block, so that reading what nobody wrote shows.
// Not emulated
//   Concurrency: a race may go unnoticed, though `order="reverse"` runs threads and blocks the other way round, and a
//   kernel without races gives the same. Lanes do not run in lockstep. Addresses in global memory are not checked.
//   Tensor cores and fast intrinsics (__expf) round differently; a*b+c is not contracted here, nvrtc may do so.
//   __CUDA_ARCH__ is 0, so that fast paths for architectures (cp.async, inline PTX) are left out. Constant
//   memory, textures, cooperative groups, streams, printf order, __activemask, __nanosleep, clocks: none.
#pragma once
// The system's headers come first: they have uses of their own for words that language.h defines.
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// In this order: each stands on those before it.
#include "language.h"
#include "fibers.h"
#include "blocks.h"
#include "launches.h"
#include "barriers.h"
#include "warps.h"
#include "floats.h"
#include "arithmetic.h"
#include "atomics.h"
#include "wmma.h"
