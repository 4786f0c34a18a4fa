// CUDA C++ on the CPU: enough of it to run the general path of kernels/*.cu in tests, with an ordinary compiler.
//
// Every CUDA thread of a block is a fiber; blocks run one after another. A fiber runs until it needs another one
// (a barrier, a shuffle, a tensor-core product) or ends.
//
// Emulated
//   threadIdx, blockIdx, blockDim, gridDim in three dimensions; __shared__ (static, and `extern`, which
//   cuda_on_cpu.py rewrites); __syncthreads and its _count/_and/_or; __syncwarp, __shfl*_sync, __ballot/any/all_sync,
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

// --- vectors -----------------------------------------------------------------------------------------------

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

// Where a barrier or an exchange stands: the call's line, found as std::source_location finds it.
struct Place {
    int line;
    const char* file;
    static constexpr Place here(int line = __builtin_LINE(), const char* file = __builtin_FILE()) { return {line, file}; }
    bool operator==(const Place& other) const { return line == other.line && (file == other.file || !strcmp(file, other.file)); }
    std::string text() const { return std::string("line ") + std::to_string(line) + " of " + file; }
};

// --- fibers ------------------------------------------------------------------------------------------------

namespace cuda_on_cpu {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 256 << 10, GUARD = 4096, RED_ZONE = 256, SHARED_MAX = 227 << 10;

enum State { READY, AT_BARRIER, AT_EXCHANGE, FINISHED };

struct Thread;
// What the lanes of a warp do together once all lanes of the mask have brought their part.
using Exchange = void (*)(Thread* lanes, unsigned mask);

struct Thread {
    State state;
    dim3 index;
    unsigned lane;
    Place at;           // the barrier or exchange that it waits at
    unsigned mask;      // lanes that take part in the exchange
    Exchange exchange;
    uint64_t value;     // what this lane brings, then what it takes away
    unsigned source;    // a shuffle's source lane
    bool started;
    jmp_buf resume;     // where it goes on
};

inline std::vector<Thread> threads;       // of the block that runs
inline std::vector<char*> stacks;         // one a thread, kept for later launches
inline std::vector<ucontext_t> entrances; // how a thread is entered the first time
inline Thread* current = nullptr;
inline jmp_buf scheduler;
inline dim3 block_index, block_size, grid_size;
inline void (*body)(void*) = nullptr;
inline void* body_args = nullptr;
inline std::string failure;
inline std::vector<const void*> spoilt;  // static shared variables that this block has met
alignas(128) inline unsigned char shared_memory[SHARED_MAX + RED_ZONE];

inline Thread* ready[WARP];  // the lanes that are to run before anybody looks at the warp again
inline unsigned ready_count, ready_next;

// The next lane, or back to run_warp. _longjmp sets registers only: several times faster than swapcontext, which
// asks the operating system for signal masks.
__attribute__((noinline)) inline void go_on() {
    if (ready_next == ready_count || !failure.empty()) _longjmp(scheduler, 1);
    current = ready[ready_next++];
    if (current->started) _longjmp(current->resume, 1);
    current->started = true;
    setcontext(&entrances[current - threads.data()]);
}

__attribute__((noinline)) inline void hand_over() {
    if (!_setjmp(current->resume)) go_on();
}

__attribute__((noinline)) inline void run_the_ready() {
    if (!_setjmp(scheduler)) go_on();
}

inline void forever() {
    for (;;) {
        body(body_args);
        current->state = FINISHED;
        hand_over();
    }
}

inline char* new_stack() {
    void* memory = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    mprotect(memory, GUARD, PROT_NONE);  // an overflow stops here instead of in another thread's stack
    return static_cast<char*>(memory) + GUARD;
}

inline void prepare(size_t number) {
    while (stacks.size() <= number) stacks.push_back(new_stack());
    ucontext_t& entrance = entrances[number];
    getcontext(&entrance);
    entrance.uc_stack.ss_sp = stacks[number];
    entrance.uc_stack.ss_size = STACK;
    entrance.uc_link = nullptr;
    makecontext(&entrance, forever, 0);
}

// Stands after every static __shared__ declaration: what the last block left there is not for this one.
inline void fresh(void* memory, size_t bytes) {
    for (const void* seen : spoilt)
        if (seen == memory) return;
    spoilt.push_back(memory);
    memset(memory, 0xff, bytes);
}

inline std::string name_of(const Thread& thread) {
    char text[160];
    snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", thread.index.x, thread.index.y,
             thread.index.z, block_index.x, block_index.y, block_index.z);
    return text;
}

inline std::string where(const Thread& thread) {
    if (thread.state == FINISHED) return name_of(thread) + " has left the kernel";
    const char* what = thread.state == AT_BARRIER ? " waits at the barrier in " : " waits for its warp in ";
    return name_of(thread) + what + thread.at.text();
}

inline bool fail(const std::string& text) {
    if (failure.empty()) failure = text;
    return false;
}

// Lanes at the same exchange go on when the whole mask is there. Returns whether any does.
inline bool resolve(Thread* lanes, unsigned count) {
    bool any = false;
    for (unsigned lane = 0; lane < count; lane++) {
        if (lanes[lane].state != AT_EXCHANGE) continue;
        const Thread& leader = lanes[lane];
        unsigned present = 0;
        for (unsigned other = 0; other < count; other++) {
            const Thread& x = lanes[other];
            bool same = x.state == AT_EXCHANGE && x.mask == leader.mask && x.at == leader.at;
            if (same && x.exchange == leader.exchange) present |= 1u << other;
        }
        unsigned existing = count == WARP ? ~0u : (1u << count) - 1;
        if (present != (leader.mask & existing)) continue;
        leader.exchange(lanes, present);
        for (unsigned other = 0; other < count; other++)
            if (present >> other & 1) lanes[other].state = READY;
        any = true;
    }
    return any;
}

inline bool run_warp(Thread* lanes, unsigned count, bool reverse) {
    do {
        ready_count = ready_next = 0;
        for (unsigned i = 0; i < count; i++) {
            Thread& thread = lanes[reverse ? count - 1 - i : i];
            if (thread.state == READY) ready[ready_count++] = &thread;
        }
        run_the_ready();
        if (!failure.empty()) return false;
    } while (resolve(lanes, count));
    if (!failure.empty()) return false;
    for (unsigned i = 0; i < count; i++) {
        if (lanes[i].state != AT_EXCHANGE) continue;
        for (unsigned other = 0; other < count; other++)
            if (lanes[i].mask >> other & 1 && (lanes[other].state != AT_EXCHANGE || !(lanes[other].at == lanes[i].at)))
                return fail("lanes of one warp do not meet: " + where(lanes[i]) + ", " + where(lanes[other]));
        return fail("lanes of one warp do not meet: " + where(lanes[i]) + " with another mask than the others");
    }
    return true;
}

// All threads stand at one barrier, or all have left. `left`: the latter.
inline bool at_barrier(bool& left) {
    const Thread& first = threads.front();
    for (const Thread& thread : threads) {
        bool same = thread.state == first.state && (thread.state == FINISHED || thread.at == first.at);
        if (!same) return fail("barrier divergence: " + where(first) + ", " + where(thread));
    }
    left = first.state == FINISHED;
    return true;
}

inline uint64_t barrier_count;  // threads whose predicate held at the barrier that was just passed

inline bool run_block(bool reverse) {
    const unsigned count = threads.size(), warps = (count + WARP - 1) / WARP;
    for (bool left = false; !left;) {
        for (unsigned i = 0; i < warps; i++) {
            unsigned begin = (reverse ? warps - 1 - i : i) * WARP;
            if (!run_warp(&threads[begin], begin + WARP <= count ? WARP : count - begin, reverse)) return false;
        }
        if (!at_barrier(left)) return false;
        barrier_count = 0;
        for (Thread& thread : threads) barrier_count += thread.value != 0;
        for (Thread& thread : threads) thread.state = READY;
    }
    return true;
}

inline bool run_grid(size_t shared_bytes, bool reverse) {
    const uint64_t blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t block = reverse ? blocks - 1 - i : i;
        block_index = dim3(block % grid_size.x, block / grid_size.x % grid_size.y,
                           block / grid_size.x / grid_size.y);
        memset(shared_memory, 0xff, shared_bytes + RED_ZONE);
        spoilt.clear();
        if (!run_block(reverse)) return false;
        for (size_t byte = shared_bytes; byte < shared_bytes + RED_ZONE; byte++)
            if (shared_memory[byte] != 0xff) return fail("a write past the dynamic shared memory");
    }
    return true;
}

inline void start_threads() {
    threads.assign(size_t(block_size.x) * block_size.y * block_size.z, Thread{});
    entrances.resize(threads.size());
    for (size_t i = 0; i < threads.size(); i++) {
        threads[i].index = dim3(i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y);
        threads[i].lane = i % WARP;
        prepare(i);
    }
}

// --- launches ----------------------------------------------------------------------------------------------

// One letter and the size for an argument's type: i4, f4, ...; p and the same for what a pointer points to.
template <class T> std::string kind() {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) return "p" + kind<std::remove_pointer_t<U>>();
    else if constexpr (std::is_void_v<U>) return "*";
    else if constexpr (std::is_same_v<U, bool>) return "b1";
    else if constexpr (std::is_integral_v<U>) return (std::is_signed_v<U> ? "i" : "u") + std::to_string(sizeof(U));
    else if constexpr (std::is_floating_point_v<U>) return "f" + std::to_string(sizeof(U));
    else return U::kind();
}

template <class... A> std::string kinds(void (*)(A...)) {
    std::string text;
    ((text += kind<A>() + " "), ...);
    return text;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...);
}

// What a GPU would refuse.
inline bool launchable(size_t shared_bytes) {
    const dim3 &g = grid_size, &b = block_size;
    uint64_t count = uint64_t(b.x) * b.y * b.z;
    if (!g.x || !g.y || !g.z || !count) return fail("the grid or the block is empty");
    if (g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) return fail("the grid is too large: 2^31 - 1, 65535, 65535");
    if (count > 1024 || b.z > 64) return fail("the block is too large: 1024 threads, 64 in z");
    return shared_bytes <= SHARED_MAX || fail("more than 227 KiB of dynamic shared memory");
}

// Returns an empty text, or what went wrong.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared_bytes,
                   void** args, int reverse) {
    grid_size = dim3(grid[0], grid[1], grid[2]);
    block_size = dim3(block[0], block[1], block[2]);
    auto one_thread = [&] { call(kernel, args, std::index_sequence_for<A...>{}); };
    body = [](void* f) { (*static_cast<decltype(one_thread)*>(f))(); };
    body_args = &one_thread;
    failure.clear();
    if (launchable(shared_bytes)) {
        start_threads();
        run_grid(shared_bytes, reverse);
    }
    return failure.c_str();
}

}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::current->index)
#define blockIdx (cuda_on_cpu::block_index)
#define blockDim (cuda_on_cpu::block_size)
#define gridDim (cuda_on_cpu::grid_size)
constexpr int warpSize = 32;

// --- barriers ----------------------------------------------------------------------------------------------

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

// --- warps -------------------------------------------------------------------------------------------------

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

// --- half and bfloat16 ---------------------------------------------------------------------------------------

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

// --- arithmetic --------------------------------------------------------------------------------------------

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
inline float rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline unsigned __float2uint_rz(float x) { return unsigned(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline int __float_as_int(float x) { return cuda_on_cpu::from_bits<int>(cuda_on_cpu::bits(x)); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu::from_bits<unsigned>(cuda_on_cpu::bits(x)); }
inline float __int_as_float(int x) { return cuda_on_cpu::from_bits<float>(cuda_on_cpu::bits(x)); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu::from_bits<float>(cuda_on_cpu::bits(x)); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu::from_bits<long long>(cuda_on_cpu::bits(x)); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu::from_bits<double>(cuda_on_cpu::bits(x)); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned out = 0;
    for (int i = 0; i < 32; i++) out |= (x >> i & 1u) << (31 - i);
    return out;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
inline int __mulhi(int a, int b) { return int64_t(a) * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcg(T* p, T x) { *p = x; }
template <class T> void __stcs(T* p, T x) { *p = x; }

// --- atomics: one operating-system thread, so plain reads and writes are atomic ----------------------------

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

// --- tensor cores --------------------------------------------------------------------------------------------

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

// A lane's share of a tile. As on a GPU, which elements are whose is nobody's business: element i of a lane is
// number i * 32 + lane of the tile, so that a kernel that assumes otherwise gives wrong results here too.
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static constexpr int ROWS = std::is_same_v<Use, matrix_b> ? K : M;
    static constexpr int COLUMNS = std::is_same_v<Use, matrix_a> ? K : N;
    static constexpr int num_elements = ROWS * COLUMNS / 32;
    T x[num_elements];
};

template <class F, class T> void fill_fragment(F& f, T value) {
    for (auto& x : f.x) x = value;
}

template <class F, class T> auto& element(F& f, T* memory, unsigned leading, bool rows, int i) {
    unsigned number = i * 32 + cuda_on_cpu::current->lane, row = number / F::COLUMNS, column = number % F::COLUMNS;
    return memory[rows ? size_t(row) * leading + column : size_t(column) * leading + row];
}

template <class U, int M, int N, int K, class T, class L>
void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const T* memory, unsigned leading, Place at = Place::here()) {
    __syncwarp(~0u, at);
    for (int i = 0; i < f.num_elements; i++) f.x[i] = element(f, memory, leading, std::is_same_v<L, row_major>, i);
}
template <int M, int N, int K, class T>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* memory, unsigned leading, layout_t layout,
                      Place at = Place::here()) {
    __syncwarp(~0u, at);
    for (int i = 0; i < f.num_elements; i++) f.x[i] = element(f, memory, leading, layout == mem_row_major, i);
}
template <int M, int N, int K, class T>
void store_matrix_sync(T* memory, const fragment<accumulator, M, N, K, T>& f, unsigned leading, layout_t layout,
                       Place at = Place::here()) {
    __syncwarp(~0u, at);
    for (int i = 0; i < f.num_elements; i++) element(f, memory, leading, layout == mem_row_major, i) = f.x[i];
    __syncwarp(~0u, at);
}

// d = a b + c for the whole warp at once; products of 16-bit numbers are exact, sums are rounded to C one by one.
template <class D, class A, class B, class C> struct Product {
    D* d;
    const A* a;
    const B* b;
    const C* c;

    static void multiply(cuda_on_cpu::Thread* lanes, unsigned mask) {
        if (mask != ~0u) return void(cuda_on_cpu::fail("a tensor-core product in a warp of fewer than 32 threads"));
        using Sum = std::conditional_t<std::is_same_v<decltype(C::x[0] + 0), double>, double, float>;
        constexpr int M = A::ROWS, N = B::COLUMNS, K = A::COLUMNS;
        Sum a[M * K], b[K * N], c[M * N];
        for (int lane = 0; lane < 32; lane++) {
            const Product& p = *reinterpret_cast<const Product*>(lanes[lane].value);
            for (int i = 0; i < A::num_elements; i++) a[i * 32 + lane] = Sum(p.a->x[i]);
            for (int i = 0; i < B::num_elements; i++) b[i * 32 + lane] = Sum(p.b->x[i]);
            for (int i = 0; i < C::num_elements; i++) c[i * 32 + lane] = Sum(p.c->x[i]);
        }
        for (int m = 0; m < M; m++)
            for (int k = 0; k < K; k++)
                for (int n = 0; n < N; n++) c[m * N + n] += a[m * K + k] * b[k * N + n];
        for (int lane = 0; lane < 32; lane++) {
            const Product& p = *reinterpret_cast<const Product*>(lanes[lane].value);
            for (int i = 0; i < D::num_elements; i++) p.d->x[i] = c[i * 32 + lane];
        }
    }
};

template <class D, class A, class B, class C>
void mma_sync(D& d, const A& a, const B& b, const C& c, Place at = Place::here()) {
    Product<D, A, B, C> product{&d, &a, &b, &c};
    cuda_on_cpu::exchange(~0u, reinterpret_cast<uint64_t>(&product), 0, Product<D, A, B, C>::multiply, at);
}

}  // namespace nvcuda::wmma
