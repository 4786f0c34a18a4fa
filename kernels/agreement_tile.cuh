// Approximate products of a warp's 32 queries with a tile's KEYS keys, in registers. For agreement_topk.cu.
//
// Compiled under TENSOR (1: half codes on tensor cores; 0: float32), QUERIES of a block (a multiple of 32, and its number
// of threads), KEYS of a tile (a multiple of 16), and both modalities' widths VIDEO and AUDIO in codes, multiples of 16;
// AUDIO=0 where only one matters. Thread t answers for query t; a warp's rows are its own, so that no block waits for them.
//
// Either way a lane's 8 products of a 16 x 16 part are those at `Places`: which they are is unspecified for tensor cores, so
// the kernel asks them, by loading a matrix of its elements' numbers.
#pragma once
#include "common.cuh"
#if TENSOR
#include <mma.h>
using namespace nvcuda;
typedef __half Code;
typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> Part;
#else
typedef float Code;
struct Part {
    float x[8];
};
#endif

constexpr bool BOTH = AUDIO > 0;
constexpr int STRIPS = 2, PARTS = KEYS / 16, EACH = 8;  // of 16 queries, of 16 keys; products of a lane in a part

struct Products {
    Part part[STRIPS][PARTS];
};

struct Places {
    int number[EACH];  // 16 * row + column in the part
    __device__ int row(int e) const { return number[e] >> 4; }
    __device__ int column(int e) const { return number[e] & 15; }
};

// One modality's `codes` (N, width), and upper bounds of its rows' norms and errors (N,).
struct Table {
    const Code* codes;
    const float* norm;
    const float* error;
};

// 16 bytes from global to shared memory, or zeros. Where the processor can it happens in the background.
__device__ __forceinline__ void copy16(void* to, const void* from, bool there) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(there ? 16 : 0) : "memory");
#else
    *(uint4*)to = there ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
#endif
}

__device__ __forceinline__ void copies_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Columns first … first + COLUMNS - 1 of table rows index(0), index(1), …, zeros where that is negative.
template <int COLUMNS, int PITCH, typename Index>
__device__ void stage(Code* to, int rows, const Code* from, int width, int first, Index index) {
    constexpr int STEP = 16 / sizeof(Code), PIECES = COLUMNS / STEP;
    for (int at = threadIdx.x; at < rows * PIECES; at += QUERIES) {
        int r = at / PIECES, c = at % PIECES * STEP;
        auto row = index(r);
        copy16(to + r * PITCH + c, from + (int64)(row < 0 ? 0 : row) * width + first + c, row >= 0);
    }
}

// The smaller (sign > 0) or larger of both modalities' products, in the first's place.
__device__ __forceinline__ void combine(Products& a, const Products& b, int sign) {
#pragma unroll
    for (int i = 0; i < STRIPS * PARTS * EACH; i++) {
        float& x = a.part[i / EACH / PARTS][i / EACH % PARTS].x[i % EACH];
        float y = b.part[i / EACH / PARTS][i / EACH % PARTS].x[i % EACH];
        x = sign > 0 ? fminf(x, y) : fmaxf(x, y);
    }
}

// `Tiles`, whose `scores` fills Products, tile after tile, and `find_places`.
#if TENSOR
#include "agreement_tensor.cuh"
#else
#include "agreement_float32.cuh"
#endif
