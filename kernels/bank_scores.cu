// variants: BANK=0,WIDTH=128; BANK=1,WIDTH=128; BANK=2,WIDTH=128; BANK=1,WIDTH=50
//
// A memory bank of N rows, WIDTH numbers each, of type BANK: 0 float, 1 half, 2 bfloat16 (AVID, Eq. 1-3).
//
//   bank_dot      scores = query . bank[ids]                 grid (B, ceil(K / chunk))
//   bank_combine  total = sum_k weights_k bank[ids_k]        grid B
//   bank_draw     negatives outside a sorted set             grid B, shared memory 4 max(E, 1) bytes
//   bank_nce      draw, loss and gradient in one pass        grid B, shared memory 4 max(E, 1) bytes
//   bank_update   moving average of rows, in place           grid ceil(B / warps)
//
// Blocks are of whole warps, at most 32. Rows are gathered by groups of 8 lanes, 16 bytes a lane at a time, four rows
// a warp; eight rounds of that make the 32 rows whose ids the lanes of a warp hold. Every row is read once. Draws
// equal the CPU path's; sums are added in an order that depends on the launch's shape alone, in float32 within a
// score or gradient, in float64 across scores.
#include "common.cuh"

#if BANK == 0
typedef float Storage;
#elif BANK == 1
typedef __half Storage;
#else
typedef __nv_bfloat16 Storage;
#endif

constexpr int LANES = 8, GROUPS = 32 / LANES, ROUNDS = 32 / GROUPS;
constexpr int WIDE = 16 / sizeof(Storage);
constexpr int VECTOR = WIDTH % WIDE == 0 ? WIDE : 1;  // numbers in one load
constexpr int PARTS = (WIDTH + LANES * VECTOR - 1) / (LANES * VECTOR);

// --- rows in registers: a lane's numbers are those at place(part, 0) ... place(part, VECTOR - 1) -----------------

struct Slice { float x[PARTS * VECTOR]; };
template <typename T> struct alignas(VECTOR * sizeof(T) < 16 ? VECTOR * sizeof(T) : 16) Chunk { T x[VECTOR]; };

__device__ __forceinline__ int place(int part) { return (part * LANES + threadIdx.x % LANES) * VECTOR; }

template <typename T> __device__ __forceinline__ Slice load(const T* __restrict__ row) {
    Slice out;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        bool inside = row && place(part) < WIDTH;
        Chunk<T> chunk;
        if (inside) chunk = *reinterpret_cast<const Chunk<T>*>(row + place(part));  // 16 bytes at a time
#pragma unroll
        for (int i = 0; i < VECTOR; i++) out.x[part * VECTOR + i] = inside ? to_float(chunk.x[i]) : 0.0f;
    }
    return out;
}

// Inner product, the same in all lanes of a group.
__device__ __forceinline__ float dot(const Slice& a, const Slice& b) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PARTS * VECTOR; i++) sum += a.x[i] * b.x[i];
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, step);
    return sum;
}

__device__ __forceinline__ void add(Slice& total, float weight, const Slice& row) {
#pragma unroll
    for (int i = 0; i < PARTS * VECTOR; i++) total.x[i] += weight * row.x[i];
}

__device__ __forceinline__ const Storage* row_of(const Storage* bank, int64 id) {
    return id < 0 ? nullptr : bank + id * WIDTH;
}

// out (WIDTH,) = the sum of all threads' totals: groups of a warp, then warps in their order.
__device__ void store_sum(Slice total, float* out) {
    __shared__ float sums[WIDTH];
    for (int i = 0; i < PARTS * VECTOR; i++)
        for (int step = LANES; step < 32; step *= 2) total.x[i] += __shfl_xor_sync(FULL_WARP, total.x[i], step);
    for (int warp = 0; warp < blockDim.x / 32; warp++) {
        if (threadIdx.x / 32 == warp && threadIdx.x % 32 < LANES)
            for (int i = 0; i < PARTS * VECTOR; i++) {
                int column = place(i / VECTOR) + i % VECTOR;
                if (column < WIDTH) sums[column] = (warp ? sums[column] : 0.0f) + total.x[i];
            }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < WIDTH; i += blockDim.x) out[i] = sums[i];
}

// The sum of all threads' numbers, right in thread 0.
__device__ double block_sum(double x) {
    __shared__ double sums[32];
    __syncthreads();  // the last call's sums have been read
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) total += sums[warp];
    return total;
}

// --- negatives: see bank_draw.py -----------------------------------------------------------------------------

// One warp: gaps of the excluded rows, as in bank_draw.gaps. Returns their number, -1 if `excluded` is wrong.
__device__ int find_gaps(const int64* excluded, int width, int64 rows, int* gaps) {
    const int lane = threadIdx.x % 32;
    int used = 0;
    bool bad = false;
    for (int base = 0; base < width; base += 32) {
        int i = base + lane;
        int64 value = i < width ? excluded[i] : -1, last = i > 0 && i < width ? excluded[i - 1] : 0;
        bool there = value != -1 && value != rows;
        bad |= there && (value < 0 || value > rows || (i > 0 && (last == -1 || value < last)));
        bool fresh = there && (i == 0 || value != last);
        unsigned all = __ballot_sync(FULL_WARP, fresh);
        int rank = used + __popc(all & ((1u << lane) - 1));
        if (fresh) gaps[rank] = int(value - rank);
        used += __popc(all);
    }
    return __ballot_sync(FULL_WARP, bad) || used >= rows ? -1 : used;
}

// The whole block: `find_gaps`, and a mark in `wrong` if it fails.
__device__ int shared_gaps(const int64* excluded, int width, int64 rows, int* gaps, int* wrong) {
    __shared__ int used;
    if (threadIdx.x < 32) {
        int found = find_gaps(excluded, width, rows, gaps);
        if (threadIdx.x == 0) used = found;
        if (threadIdx.x == 0 && found < 0) *wrong = 1;
    }
    __syncthreads();
    return used;
}

__device__ int64 draw(const int* gaps, int used, int64 rows, int64 seed, int64 step, int64 place, int column) {
    uint4 counter = make_uint4(column / 2, uint32(place), uint32(step), uint32(uint64(step) >> 32));
    uint4 words = philox(counter, make_uint2(uint32(seed), uint32(uint64(seed) >> 32)));
    uint64 low = column % 2 ? words.z : words.x, high = column % 2 ? words.w : words.y, limit = rows - used;
    int64 rank = int64((high * limit + (low * limit >> 32)) >> 32);
    int first = 0, last = used;  // the first gap above the rank
    while (first < last) {
        int middle = (first + last) / 2;
        if (gaps[middle] <= rank) first = middle + 1;
        else last = middle;
    }
    return rank + first;
}

// --- kernels -------------------------------------------------------------------------------------------------

extern "C" __global__ void bank_dot(const float* __restrict__ query, const Storage* __restrict__ bank,
                                    const int64* __restrict__ ids, float* __restrict__ scores, int count, int chunk) {
    const int lane = threadIdx.x % 32, group = lane / LANES;
    const int64 b = blockIdx.x;
    const int end = min(count, int(blockIdx.y + 1) * chunk);
    const Slice q = load(query + b * WIDTH);
    for (int base = blockIdx.y * chunk + threadIdx.x / 32 * 32; base < end; base += blockDim.x) {
        int64 id = base + lane < end ? ids[b * count + base + lane] : -1;
        float mine = 0;
#pragma unroll 4
        for (int round = 0; round < ROUNDS; round++) {
            float score = dot(q, load(row_of(bank, __shfl_sync(FULL_WARP, id, round * GROUPS + group))));
            score = __shfl_sync(FULL_WARP, score, lane % GROUPS * LANES);
            if (lane / GROUPS == round) mine = score;
        }
        if (base + lane < end) scores[b * count + base + lane] = mine;
    }
}

extern "C" __global__ void bank_combine(const float* __restrict__ weights, const Storage* __restrict__ bank,
                                        const int64* __restrict__ ids, float* __restrict__ total, int count) {
    const int lane = threadIdx.x % 32, group = lane / LANES;
    const int64 b = blockIdx.x;
    Slice sum = {};
    for (int base = threadIdx.x / 32 * 32; base < count; base += blockDim.x) {
        bool inside = base + lane < count;
        int64 id = inside ? ids[b * count + base + lane] : -1;
        float weight = inside ? weights[b * count + base + lane] : 0.0f;
#pragma unroll 4
        for (int round = 0; round < ROUNDS; round++) {
            int source = round * GROUPS + group;
            Slice row = load(row_of(bank, __shfl_sync(FULL_WARP, id, source)));
            add(sum, __shfl_sync(FULL_WARP, weight, source), row);
        }
    }
    store_sum(sum, total + b * WIDTH);
}

extern "C" __global__ void bank_draw(const int64* excluded, int64* ids, int* wrong, int width, int count, int64 rows,
                                     int64 seed, int64 step, int64 offset) {
    extern __shared__ int gaps[];
    const int64 b = blockIdx.x;
    int used = shared_gaps(excluded + b * width, width, rows, gaps, wrong);
    for (int k = threadIdx.x; k < count; k += blockDim.x)
        ids[b * count + k] = used < 0 ? 0 : draw(gaps, used, rows, seed, step, offset + b, k);
}

// Columns 0 ... given - 1 are positives (-1: none), the others negatives. A logit is score * scale - log(K Z); the
// loss is softplus(-logit) of a positive and softplus(logit) of a negative, times its factor.
extern "C" __global__ void bank_nce(
    const float* __restrict__ query, const Storage* __restrict__ bank, const int64* __restrict__ positives,
    const int64* __restrict__ excluded, const float* __restrict__ weights, const bool* __restrict__ valid,
    const double* __restrict__ partition, float* __restrict__ loss, double* __restrict__ exp_sum,
    float* __restrict__ gradient, int* __restrict__ wrong, int given, int width, int negatives, int64 rows,
    double scale, int64 seed, int64 step, int64 offset, int derive) {
    extern __shared__ int gaps[];
    const int lane = threadIdx.x % 32, group = lane / LANES, count = given + negatives;
    const int64 b = blockIdx.x;
    if (!valid[b]) return;
    const int used = shared_gaps(excluded + b * width, width, rows, gaps, wrong);
    if (used < 0) return;

    const Slice q = load(query + b * WIDTH);
    const double shift = log(negatives * *partition);
    float whole = 0;
    for (int i = 0; i < given; i++)
        if (positives[b * given + i] >= 0) whole += weights[b * given + i];

    Slice slope = {};
    double losses = 0, sums = 0;
    for (int base = threadIdx.x / 32 * 32; base < count; base += blockDim.x) {
        const int column = base + lane;
        int64 id = -1;
        if (column < given) id = positives[b * given + column];
        else if (column < count) id = draw(gaps, used, rows, seed, step, offset + b, column - given);
        const float factor = id < 0 ? 0.0f : column < given ? weights[b * given + column] : whole;
        float mine = 0;
#pragma unroll 4
        for (int round = 0; round < ROUNDS; round++) {
            const int source = round * GROUPS + group;
            Slice row = load(row_of(bank, __shfl_sync(FULL_WARP, id, source)));
            float score = dot(q, row);
            if (derive) {
                float sign = base + source < given ? -1.0f : 1.0f;
                float logit = sign * (score * float(scale) - float(shift));
                float weight = __shfl_sync(FULL_WARP, factor, source) * sign * float(scale);
                add(slope, weight / (1 + expf(-logit)), row);
            }
            score = __shfl_sync(FULL_WARP, score, lane % GROUPS * LANES);
            if (lane / GROUPS == round) mine = score;
        }
        float logit = (column < given ? -1.0f : 1.0f) * float(mine * scale - shift);
        losses += double(factor) * (fmaxf(logit, 0.0f) + log1pf(expf(-fabsf(logit))));  // where there is no id: 0
        if (column >= given && column < count) sums += exp(fmin(mine * scale, 709.0));
    }
    losses = block_sum(losses);
    sums = block_sum(sums);
    if (threadIdx.x == 0) loss[b] = float(losses), exp_sum[b] = sums;
    if (derive) store_sum(slope, gradient + b * WIDTH);
}

// One warp for each of the sorted ids; it works where an id stands first, on all features of that id.
extern "C" __global__ void bank_update(Storage* bank, const int64* ids, const int64* order, const float* features,
                                       int count, double momentum) {
    constexpr int COLUMNS = (WIDTH + 31) / 32;
    const int lane = threadIdx.x % 32, first = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (first >= count || ids[first] < 0 || (first > 0 && ids[first - 1] == ids[first])) return;
    double toward[COLUMNS] = {};
    int used = 0;
    for (int i = first; i < count && ids[i] == ids[first]; i++) {
        const float* x = features + order[i] * WIDTH;
        double square = 0;
        for (int j = lane; j < WIDTH; j += 32) square += double(x[j]) * x[j];
        square = warp_sum(square);
        if (square == 0) continue;
        for (int j = lane; j < WIDTH; j += 32) toward[j / 32] += x[j] / sqrt(square);
        used++;
    }
    Storage* row = bank + ids[first] * WIDTH;
    double square = 0, length = 0;
    for (int j = lane; j < WIDTH; j += 32) {
        length += toward[j / 32] * toward[j / 32];
        toward[j / 32] = momentum * to_float(row[j]) + (1 - momentum) / used * toward[j / 32];
        square += toward[j / 32] * toward[j / 32];
    }
    length = warp_sum(length), square = warp_sum(square);
    if (length == 0 || square == 0) return;
    for (int j = lane; j < WIDTH; j += 32) row[j] = from_float<Storage>(float(toward[j / 32] / sqrt(square)));
}
