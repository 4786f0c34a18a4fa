// Stands in for the scheduler of warps and blocks: runs fibers in turn, lets those go on that have met, and finds
// those that never will.
#pragma once

namespace cuda_on_cpu {

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

}  // namespace cuda_on_cpu
