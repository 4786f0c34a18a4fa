// Stands in for cuda_fp16.h and cuda_bf16.h: half and bfloat16 as 16 bits, computed in float and rounded to nearest
// even after every operation.
#pragma once

namespace cuda_on_cpu {

inline float half_to_float(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = uint32_t(h & 0x7fff) << 13;
    if ((h & 0x7c00) == 0x7c00) return from_bits<float>(sign | magnitude | 0x7f800000);
    float scaled = from_bits<float>(magnitude) * 0x1p112f;  // moves the exponent's bias; exact, subnormals too
    return from_bits<float>(sign | uint32_t(bits(scaled)));
}

inline uint16_t float_to_half(float x) {
    uint32_t word = bits(x), sign = word >> 16 & 0x8000, magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;                 // NaN: CUDA's canonical one
    if (magnitude >= 0x477ff000) return sign | 0x7c00;         // rounds to infinity
    if (magnitude < 0x38800000) {                              // subnormal: let an addition round
        float rounded = from_bits<float>(magnitude) + 0.5f;
        return sign | (uint32_t(bits(rounded)) - 0x3f000000);
    }
    uint32_t odd = magnitude >> 13 & 1;
    return sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

inline float bfloat16_to_float(uint16_t b) { return from_bits<float>(uint32_t(b) << 16); }

inline uint16_t float_to_bfloat16(float x) {
    uint32_t word = bits(x);
    if ((word & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (word + 0x7fff + (word >> 16 & 1)) >> 16;
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_SMALL(T, T2, encode, decode)                                                   \
    struct T {                                                                                     \
        uint16_t word;                                                                             \
        T() = default;                                                                             \
        T(float x) : word(cuda_on_cpu::encode(x)) {}                                               \
        T(double x) : T(float(x)) {}                                                               \
        T(int x) : T(float(x)) {}                                                                  \
        operator float() const { return cuda_on_cpu::decode(word); }                               \
        static std::string kind() { return #T; }                                                   \
        T& operator+=(T b) { return *this = T(float(*this) + float(b)); }                          \
        T& operator-=(T b) { return *this = T(float(*this) - float(b)); }                          \
        T& operator*=(T b) { return *this = T(float(*this) * float(b)); }                          \
        T& operator/=(T b) { return *this = T(float(*this) / float(b)); }                          \
    };                                                                                             \
    struct alignas(4) T2 { T x, y; T2() = default; T2(T x, T y) : x(x), y(y) {} };                 \
    inline T operator+(T a, T b) { return a += b; }                                                \
    inline T operator-(T a, T b) { return a -= b; }                                                \
    inline T operator*(T a, T b) { return a *= b; }                                                \
    inline T operator/(T a, T b) { return a /= b; }                                                \
    inline T operator-(T a) { return T(-float(a)); }                                               \
    inline bool operator<(T a, T b) { return float(a) < float(b); }                                \
    inline bool operator>(T a, T b) { return float(a) > float(b); }                                \
    inline bool operator<=(T a, T b) { return float(a) <= float(b); }                              \
    inline bool operator>=(T a, T b) { return float(a) >= float(b); }                              \
    inline bool operator==(T a, T b) { return float(a) == float(b); }                              \
    inline bool operator!=(T a, T b) { return float(a) != float(b); }                              \
    inline T __hadd(T a, T b) { return a + b; }                                                    \
    inline T __hsub(T a, T b) { return a - b; }                                                    \
    inline T __hmul(T a, T b) { return a * b; }                                                    \
    inline T __hdiv(T a, T b) { return a / b; }                                                    \
    inline T __hneg(T a) { return -a; }                                                            \
    inline T __habs(T a) { return T(fabsf(float(a))); }                                            \
    inline T __hfma(T a, T b, T c) { return T(float(double(float(a)) * float(b) + float(c))); }    \
    inline T __hmin(T a, T b) { return T(fminf(float(a), float(b))); }                             \
    inline T __hmax(T a, T b) { return T(fmaxf(float(a), float(b))); }                             \
    inline bool __hlt(T a, T b) { return a < b; }                                                  \
    inline bool __hle(T a, T b) { return a <= b; }                                                 \
    inline bool __hgt(T a, T b) { return a > b; }                                                  \
    inline bool __hge(T a, T b) { return a >= b; }                                                 \
    inline bool __heq(T a, T b) { return a == b; }                                                 \
    inline bool __hne(T a, T b) { return a != b; }                                                 \
    inline bool __hisnan(T a) { return __builtin_isnan(float(a)); }                                          \
    inline T2 __hadd2(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                               \
    inline T2 __hsub2(T2 a, T2 b) { return {a.x - b.x, a.y - b.y}; }                               \
    inline T2 __hmul2(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                               \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
    inline T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                 \
    inline T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                 \
    inline float __low2float(T2 a) { return float(a.x); }                                          \
    inline float __high2float(T2 a) { return float(a.y); }
CUDA_ON_CPU_SMALL(__half, __half2, float_to_half, half_to_float)
CUDA_ON_CPU_SMALL(__nv_bfloat16, __nv_bfloat162, float_to_bfloat16, bfloat16_to_float)
using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline float __half2float(__half x) { return float(x); }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __double2half(double x) { return __half(float(x)); }
inline float2 __half22float2(__half2 x) { return {float(x.x), float(x.y)}; }
inline __half2 __float22half2_rn(float2 x) { return {__half(x.x), __half(x.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline unsigned short __half_as_ushort(__half x) { return x.word; }
inline short __half_as_short(__half x) { return x.word; }
inline __half __ushort_as_half(unsigned short x) { return cuda_on_cpu::from_bits<__half>(x); }
inline __half __short_as_half(short x) { return __ushort_as_half(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return float(x); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline float2 __bfloat1622float2(__nv_bfloat162 x) { return {float(x.x), float(x.y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 x) { return {__nv_bfloat16(x.x), __nv_bfloat16(x.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 x) { return x.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 x) { return x.y; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.word; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return cuda_on_cpu::from_bits<__nv_bfloat16>(x); }
