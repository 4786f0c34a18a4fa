// Stands in for atomics: there is one operating-system thread, and a fiber only hands over where it waits, so that
// plain reads and writes are atomic.
#pragma once

namespace cuda_on_cpu {
template <class T> struct Same { using type = T; };  // a parameter that T is not deduced from
template <class T> using same = typename Same<T>::type;
template <class T> T swap_in(T* p, T x) { T old = *p; *p = x; return old; }
}  // namespace cuda_on_cpu

template <class T> T atomicAdd(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, T(*p + x)); }
template <class T> T atomicSub(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, T(*p - x)); }
template <class T> T atomicMin(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, x < *p ? x : *p); }
template <class T> T atomicMax(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, x > *p ? x : *p); }
template <class T> T atomicAnd(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, T(*p & x)); }
template <class T> T atomicOr(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, T(*p | x)); }
template <class T> T atomicXor(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, T(*p ^ x)); }
template <class T> T atomicExch(T* p, cuda_on_cpu::same<T> x) { return cuda_on_cpu::swap_in(p, x); }
template <class T> T atomicCAS(T* p, cuda_on_cpu::same<T> expected, cuda_on_cpu::same<T> x) {
    return cuda_on_cpu::swap_in(p, *p == expected ? x : *p);
}
inline unsigned atomicInc(unsigned* p, unsigned limit) { return cuda_on_cpu::swap_in(p, *p >= limit ? 0u : *p + 1); }
