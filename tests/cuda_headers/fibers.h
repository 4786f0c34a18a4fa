// Stands in for a block's threads: each is a fiber with a stack of its own, which runs until it hands over to the
// next one. What every thread waits for, and where, is kept for the scheduler (blocks.h) and for errors.
#pragma once

// Where a barrier or an exchange stands: the call's line, found as std::source_location finds it.
struct Place {
    int line;
    const char* file;
    static constexpr Place here(int line = __builtin_LINE(), const char* file = __builtin_FILE()) { return {line, file}; }
    bool operator==(const Place& other) const { return line == other.line && (file == other.file || !strcmp(file, other.file)); }
    std::string text() const { return std::string("line ") + std::to_string(line) + " of " + file; }
};

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

}  // namespace cuda_on_cpu
