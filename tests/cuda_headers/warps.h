// Stands in for what the lanes of a warp tell each other: shuffles, votes, matches and reductions. A lane brings a
// value and waits for the others of its mask; when all are there, each is given what it takes away.
#pragma once

namespace cuda_on_cpu {

inline uint64_t exchange(unsigned mask, uint64_t value, unsigned source, Exchange what, Place at) {
    Thread& me = *current;
    if (!(mask >> me.lane & 1)) {
        fail(name_of(me) + " is not in its own mask in " + at.text());
        hand_over();
    }
    me.mask = mask, me.value = value, me.source = source, me.exchange = what, me.at = at;
    me.state = AT_EXCHANGE;
    hand_over();
    return me.value;
}

template <class T> uint64_t bits(T x) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t out = 0;
    memcpy(&out, &x, sizeof x);
    return out;
}

template <class T> T from_bits(uint64_t x) {
    T out;
    memcpy(&out, &x, sizeof out);
    return out;
}

inline void meet(Thread*, unsigned) {}

inline void shuffle(Thread* lanes, unsigned mask) {
    uint64_t before[WARP];
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1) before[i] = lanes[i].value;
    for (unsigned i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        if (mask >> lanes[i].source & 1) lanes[i].value = before[lanes[i].source];
        else fail(name_of(lanes[i]) + " reads a lane outside its mask in " + lanes[i].at.text());
    }
}

inline void vote(Thread* lanes, unsigned mask) {
    unsigned votes = 0;
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1 && lanes[i].value) votes |= 1u << i;
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1) lanes[i].value = votes;
}

inline void match(Thread* lanes, unsigned mask) {
    uint64_t before[WARP];
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1) before[i] = lanes[i].value;
    for (unsigned i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        lanes[i].value = 0;
        for (unsigned j = 0; j < WARP; j++)
            if (mask >> j & 1 && before[j] == before[i]) lanes[i].value |= 1u << j;
    }
}

template <class T, T (*combine)(T, T)> void reduce(Thread* lanes, unsigned mask) {
    unsigned first = __builtin_ctz(mask);
    T total = from_bits<T>(lanes[first].value);
    for (unsigned i = first + 1; i < WARP; i++)
        if (mask >> i & 1) total = combine(total, from_bits<T>(lanes[i].value));
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1) lanes[i].value = bits(total);
}

template <class T> T shuffled(unsigned mask, T x, unsigned source, Place at) {
    return from_bits<T>(exchange(mask, bits(x), source, shuffle, at));
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = ~0u, Place at = Place::here()) {
    cuda_on_cpu::exchange(mask, 0, 0, cuda_on_cpu::meet, at);
}
template <class T> T __shfl_sync(unsigned mask, T x, int source, int width = 32, Place at = Place::here()) {
    unsigned lane = cuda_on_cpu::current->lane;
    return cuda_on_cpu::shuffled(mask, x, (lane & ~(width - 1)) | (source & (width - 1)), at);
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned d, int width = 32, Place at = Place::here()) {
    unsigned lane = cuda_on_cpu::current->lane, within = lane & (width - 1);
    return cuda_on_cpu::shuffled(mask, x, within >= d ? lane - d : lane, at);
}
template <class T> T __shfl_down_sync(unsigned mask, T x, unsigned d, int width = 32, Place at = Place::here()) {
    unsigned lane = cuda_on_cpu::current->lane, within = lane & (width - 1);
    return cuda_on_cpu::shuffled(mask, x, within + d < unsigned(width) ? lane + d : lane, at);
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32, Place at = Place::here()) {
    unsigned lane = cuda_on_cpu::current->lane, other = lane ^ bits;
    bool beyond = other >= (lane & ~(width - 1)) + width;  // a later segment keeps its own value
    return cuda_on_cpu::shuffled(mask, x, beyond ? lane : other, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Place at = Place::here()) {
    return cuda_on_cpu::exchange(mask, predicate != 0, 0, cuda_on_cpu::vote, at);
}
inline int __any_sync(unsigned mask, int predicate, Place at = Place::here()) {
    return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Place at = Place::here()) {
    return __ballot_sync(mask, !predicate, at) == 0;
}
template <class T> unsigned __match_any_sync(unsigned mask, T x, Place at = Place::here()) {
    return cuda_on_cpu::exchange(mask, cuda_on_cpu::bits(x), 0, cuda_on_cpu::match, at);
}

#define CUDA_ON_CPU_REDUCE(name, T, expression)                                                    \
    namespace cuda_on_cpu { inline T name##_of(T a, T b) { return expression; } }                  \
    inline T __reduce_##name##_sync(unsigned mask, T x, Place at = Place::here()) {             \
        using namespace cuda_on_cpu;                                                               \
        return from_bits<T>(exchange(mask, bits(x), 0, reduce<T, name##_of>, at));               \
    }
CUDA_ON_CPU_REDUCE(add, int, int(unsigned(a) + unsigned(b)))
CUDA_ON_CPU_REDUCE(add, unsigned, a + b)
CUDA_ON_CPU_REDUCE(min, int, a < b ? a : b)
CUDA_ON_CPU_REDUCE(min, unsigned, a < b ? a : b)
CUDA_ON_CPU_REDUCE(max, int, a > b ? a : b)
CUDA_ON_CPU_REDUCE(max, unsigned, a > b ? a : b)
CUDA_ON_CPU_REDUCE(and, unsigned, a & b)
CUDA_ON_CPU_REDUCE(or, unsigned, a | b)
CUDA_ON_CPU_REDUCE(xor, unsigned, a ^ b)
