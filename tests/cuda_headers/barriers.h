// Stands in for what the threads of a block have together: __syncthreads and its kin, memory fences (nothing, as one
// thread runs at a time), and __trap, which ends the launch with an error.
#pragma once

inline int __syncthreads_count(int predicate, Place at = Place::here()) {
    using namespace cuda_on_cpu;
    current->state = AT_BARRIER;
    current->at = at;
    current->value = predicate != 0;
    hand_over();
    return barrier_count;
}
inline void __syncthreads(Place at = Place::here()) { __syncthreads_count(0, at); }
inline int __syncthreads_or(int predicate, Place at = Place::here()) {
    return __syncthreads_count(predicate, at) != 0;
}
inline int __syncthreads_and(int predicate, Place at = Place::here()) {
    return __syncthreads_count(!predicate, at) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

inline void __trap(Place at = Place::here()) {
    cuda_on_cpu::fail(cuda_on_cpu::name_of(*cuda_on_cpu::current) + " trapped in " + at.text());
    cuda_on_cpu::hand_over();
}

#undef assert
#define assert(condition) ((condition) ? (void)0 : __trap())
