// variants: QUERY=float,QUEUE=float,THREADS=512; QUERY=__half,QUEUE=__half,THREADS=512; QUERY=__nv_bfloat16,QUEUE=float,THREADS=256
//
// queue_neighbors: dot products with a queue, the nearest rows and a band of ranks, by selection.
//
// queue_keys     grid (ceil(n / 64), ceil(b / 64)), block 256. keys[b][n]: scores as integers in their order. A score is
//                one chain of fused multiply-adds in float32, from the first column to the last, wherever it stands: equal
//                rows get equal scores. Rows outside the mask get the least key; `wrong` tells of NaN and infinity.
// select_ranks   grid b, block THREADS (a power of 2). One row each: four passes over 8 bits of the keys find the scores at
//                the borders of both ranges of ranks at once; a last one writes what lies between, by ascending index.
//
// Ranks and ties are those of the CPU path: a stable sort of the scores, best first. Scores differ from BLAS's by rounding.
#include "common.cuh"

constexpr int TILE = 64, DEPTH = 16, EACH = 4;  // 16 x 16 threads, 4 x 4 scores each
constexpr uint32 HIDDEN = 0;                    // below every score's key
constexpr int MOST = 1024;                      // of the nearest
constexpr int WARPS = THREADS / 32;

// Unsigned integers in the order of floats; -0 and 0 are one.
__device__ __forceinline__ uint32 key_of(float x) {
    uint32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
    return bits >> 31 ? 0x80000000u - magnitude : 0x80000000u + magnitude;
}

__device__ __forceinline__ float score_of(uint32 key) {
    return key >= 0x80000000u ? __uint_as_float(key - 0x80000000u)
                              : __uint_as_float((0x80000000u - key) | 0x80000000u);
}

template <typename T>
__device__ void load_tile(float (*tile)[TILE + 1], const T* x, int rows, int width, int row0, int column0) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += blockDim.x) {
        int row = row0 + i / DEPTH, column = column0 + i % DEPTH;
        bool inside = row < rows && column < width;
        tile[i % DEPTH][i / DEPTH] = inside ? to_float(x[(int64)row * width + column]) : 0.f;
    }
}

extern "C" __global__ void __launch_bounds__(256)
queue_keys(const QUERY* query, const QUEUE* queue, const bool* valid, uint32* keys, int* wrong, int b, int n, int width) {
    __shared__ float queries[DEPTH][TILE + 1], rows[DEPTH][TILE + 1];
    int x = threadIdx.x % 16, y = threadIdx.x / 16, row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
    float sums[EACH][EACH] = {};
    for (int depth = 0; depth < width; depth += DEPTH) {
        load_tile(queries, query, b, width, row0, depth);
        load_tile(rows, queue, n, width, column0, depth);
        __syncthreads();
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++)
                    sums[i][j] = fmaf(queries[k][y + 16 * i], rows[k][x + 16 * j], sums[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            int row = row0 + y + 16 * i, column = column0 + x + 16 * j;
            if (row >= b || column >= n) continue;
            if (valid[column] && !isfinite(sums[i][j])) *wrong = 1;
            keys[(int64)row * n + column] = valid[column] ? key_of(sums[i][j]) : HIDDEN;
        }
}

// The key at a rank, as far as it is known: its high bits, and how many keys are greater.
struct Border {
    uint32 key;
    int above;
};

// Settle 8 more bits of all four borders: one pass over the row.
__device__ void narrow(const uint32* keys, int n, const int* ranks, Border* borders, int (*counts)[256], int shift) {
    uint32 known = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    for (int i = threadIdx.x; i < 4 * 256; i += THREADS) counts[i / 256][i % 256] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS)
        for (int r = 0; r < 4; r++)
            if ((keys[i] & known) == borders[r].key) atomicAdd(&counts[r][keys[i] >> shift & 255], 1);
    __syncthreads();
    if (threadIdx.x < 4) {
        Border& border = borders[threadIdx.x];
        int digit = 255;
        for (; digit > 0 && border.above + counts[threadIdx.x][digit] <= ranks[threadIdx.x]; digit--)
            border.above += counts[threadIdx.x][digit];
        border.key |= (uint32)digit << shift;
    }
    __syncthreads();
}

// Sum over the threads before this one, and over all of them.
__device__ int2 scan(int value, int* sums) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, up = value;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(FULL_WARP, up, step);
        if (lane >= step) up += other;
    }
    if (lane == 31) sums[warp] = up;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? sums[w] : 0;
        all += sums[w];
    }
    __syncthreads();
    return make_int2(before + up - value, all);
}

// Where this thread's key goes among those of ranks [begin, stop), by index; -1: it is not one of them.
struct Range {
    Border upper, lower;
    int begin, stop, upper_seen, lower_seen, written;

    __device__ int place(bool there, uint32 key, int* sums) {
        bool at_upper = there && key == upper.key, at_lower = there && key == lower.key;
        int2 ties = scan(at_upper | at_lower << 16, sums);  // two sums in one; a block has fewer than 2^15 threads
        bool inside = there && key <= upper.key && key >= lower.key;
        if (at_upper) inside &= upper.above + upper_seen + (ties.x & 0xffff) >= begin;
        if (at_lower) inside &= lower.above + lower_seen + (ties.x >> 16) < stop;
        int2 places = scan(inside, sums);
        int at = inside ? written + places.x : -1;
        upper_seen += ties.y & 0xffff;
        lower_seen += ties.y >> 16;
        written += places.y;
        return at;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
select_ranks(const uint32* keys, float* first, int64* first_rows, float* band, int64* band_rows,
             int n, int nearest, int begin, int length) {
    __shared__ int counts[4][256], sums[WARPS], ranks[4];
    __shared__ Border borders[4];
    __shared__ uint32 best[MOST];
    __shared__ int best_rows[MOST];
    keys += (int64)blockIdx.x * n;
    int part = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) part += keys[i] != HIDDEN;
    int shown = scan(part, sums).y;
    int stop = begin < shown - length ? begin + length : shown, near = nearest < shown ? nearest : shown;
    begin = begin < shown ? begin : shown;
    if (threadIdx.x == 0) {
        int wanted[4] = {0, near - 1, begin, stop - 1};
        for (int r = 0; r < 4; r++) ranks[r] = wanted[r] < 0 ? 0 : wanted[r] < n ? wanted[r] : n - 1;
        for (int r = 0; r < 4; r++) borders[r] = {0, 0};
    }
    __syncthreads();
    for (int shift = 24; shift >= 0; shift -= 8) narrow(keys, n, ranks, borders, counts, shift);

    Range closest = {borders[0], borders[1], 0, near, 0, 0, 0};
    Range middle = {borders[2], borders[3], begin, stop, 0, 0, 0};
    for (int start = 0; start < n; start += THREADS) {
        int i = start + threadIdx.x;
        uint32 key = i < n ? keys[i] : HIDDEN;
        bool there = key != HIDDEN;
        if (near > 0 && closest.written < near) {
            int at = closest.place(there, key, sums);
            if (at >= 0) best[at] = key, best_rows[at] = i;
        }
        if (begin < stop && middle.written < stop - begin) {
            int at = middle.place(there, key, sums);
            if (at >= 0) {
                band[(int64)blockIdx.x * length + at] = score_of(key);
                band_rows[(int64)blockIdx.x * length + at] = i;
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < near; i += THREADS) {  // they lie by index: count what ranks before each
        int rank = 0;
        for (int j = 0; j < near; j++) rank += best[j] > best[i] || (best[j] == best[i] && j < i);
        first[(int64)blockIdx.x * nearest + rank] = score_of(best[i]);
        first_rows[(int64)blockIdx.x * nearest + rank] = best_rows[i];
    }
}
