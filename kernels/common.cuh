// What the kernels share: loads as float, warp reductions, a counter-based random generator.
//
// Compiles with nvrtc for sm_70 and newer, and with a C++ compiler under tests/cuda_headers/.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef long long int64;  // nvrtc has no <cstdint>; torch's int64 is this
typedef unsigned long long uint64;
typedef unsigned int uint32;

constexpr unsigned FULL_WARP = 0xffffffffu;

// --- numbers -----------------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16(x);
}

// --- warps: every lane must take part, every lane gets the result ----------------------------------------

template <typename T> __device__ __forceinline__ T warp_sum(T x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(FULL_WARP, x, step);
    return x;
}

template <typename T> __device__ __forceinline__ T warp_max(T x) {
    for (int step = 16; step > 0; step /= 2) {
        T other = __shfl_xor_sync(FULL_WARP, x, step);
        x = other > x ? other : x;
    }
    return x;
}

template <typename T> __device__ __forceinline__ T warp_min(T x) {
    for (int step = 16; step > 0; step /= 2) {
        T other = __shfl_xor_sync(FULL_WARP, x, step);
        x = other < x ? other : x;
    }
    return x;
}

// --- random numbers ----------------------------------------------------------------------------------------

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the four words of
// `counter` under `key`. A function of its arguments alone, so any thread can draw any number.
__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        uint32 low0 = 0xD2511F53u * counter.x, high0 = __umulhi(0xD2511F53u, counter.x);
        uint32 low1 = 0xCD9E8D57u * counter.z, high1 = __umulhi(0xCD9E8D57u, counter.z);
        counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
    }
    return counter;
}
