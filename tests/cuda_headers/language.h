// Stands in for CUDA's additions to C++: its words (__global__, __shared__, ...), which mean little or nothing
// to an ordinary compiler, and its vector types.
#pragma once

#define CUDA_ON_CPU 1
#define CUDA_ON_CPU_EXPORT extern "C" __attribute__((visibility("default")))
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

#define CUDA_ON_CPU_VECTORS(T, name)                                                              \
    struct alignas(sizeof(T) * 2) name##2 { T x, y; };                                            \
    struct name##3 { T x, y, z; };                                                                \
    struct alignas(sizeof(T) * 4 < 16 ? sizeof(T) * 4 : 16) name##4 { T x, y, z, w; };            \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                    \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                            \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(signed char, char)
CUDA_ON_CPU_VECTORS(unsigned char, uchar)
CUDA_ON_CPU_VECTORS(short, short)
CUDA_ON_CPU_VECTORS(unsigned short, ushort)
CUDA_ON_CPU_VECTORS(int, int)
CUDA_ON_CPU_VECTORS(unsigned, uint)
CUDA_ON_CPU_VECTORS(long long, longlong)
CUDA_ON_CPU_VECTORS(unsigned long long, ulonglong)
CUDA_ON_CPU_VECTORS(float, float)
CUDA_ON_CPU_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
