// variants: TENSOR=1,QUERIES=256,KEYS=64,VIDEO=128,AUDIO=128,ROW=float; TENSOR=1,QUERIES=96,KEYS=32,VIDEO=128,AUDIO=128,ROW=float; TENSOR=1,QUERIES=32,KEYS=64,VIDEO=16,AUDIO=0,ROW=double; TENSOR=0,QUERIES=128,KEYS=64,VIDEO=512,AUDIO=48,ROW=float
// The k rows of greatest min (or max) of two inner products, exactly; results equal those of agreement_cpu.py.
//
//   candidates   grid (query tiles, splits of the keys), QUERIES threads. Approximate scores tile by tile (see
//                agreement_tile.cuh); each row of each split keeps the keys that may be among its k best: a key goes when
//                k others' lower bounds are above its upper bound.
//   rank_rows    grid (queries), 256 threads. Float64 scores of the candidates of all splits, ranked.
//   scan_rows    any grid, 256 threads. Every key's float64 score, for rows whose candidates found no room.
#include "agreement_rank.cuh"
#include "agreement_tile.cuh"

constexpr int OPEN = -1;  // the count of a row that has more candidates than room
constexpr float TINY = 8.3e-25f;  // 2^-80, as in agreement_bounds.py
constexpr float NEVER = 3.4e38f;  // what no score reaches

__device__ float slack(const Table& t, int64 i, float norm, float error, float rounding) {
    return (t.error[i] * norm + t.norm[i] * error + rounding * t.norm[i] * norm) * (1 + 1e-6f) + TINY;
}

// A block's candidates: of row r there are count[r], from r * pitch on; a score is one if it reaches cut[r].
struct Found {
    float *cut, *scores;
    int *count, *keys;
    int64 pitch;
};

// Appends to a warp's rows the keys start … start + KEYS - 1 that reach their cuts. `barred` (rows): a key that is none.
__device__ void admit(
    const Products& sums, const Places& places, const Found& found, const int64* barred, int start, int n
) {
    int first = threadIdx.x / 32 * 32;
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
        float least[EACH];
#pragma unroll
        for (int e = 0; e < EACH; e++) least[e] = found.cut[first + 16 * s + places.row(e)];
#pragma unroll
        for (int t = 0; t < PARTS; t++) {
            bool any = false;
#pragma unroll
            for (int e = 0; e < EACH; e++) any |= sums.part[s][t].x[e] >= least[e];
            if (!any) continue;  // nearly always: scores leave the registers only where they count
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                int r = first + 16 * s + places.row(e), j = start + 16 * t + places.column(e);
                if (sums.part[s][t].x[e] < least[e] || j >= n || j == barred[r]) continue;
                int64 at = r * found.pitch + atomicAdd(&found.count[r], 1);
                found.scores[at] = sums.part[s][t].x[e], found.keys[at] = j;
            }
        }
    }
    __syncwarp();
}

// Dynamic shared memory (TENSOR only): codes of QUERIES + 2 KEYS rows of both modalities, each 8 longer than wide.
// Candidates: keys, scores (Q, splits, room), counts (Q, splits), offs (Q,), how far a row's scores are off at most; room is
// k + 2 KEYS at least. `greatest`: norm and error of any row, of both tables.
extern "C" __global__ void __launch_bounds__(QUERIES) candidates(
    const Code* video, const float* video_norm, const float* video_error,
    const Code* audio, const float* audio_norm, const float* audio_error,
    const float* greatest, float rounding, const int64* queries, int count_queries, int n, int k, int sign,
    int exclude_self, int room, int* found_keys, float* found_scores, int* found_counts, float* offs
) {
    __shared__ float cut[QUERIES];
    __shared__ int count[QUERIES];
    __shared__ int64 asked[QUERIES];
    __shared__ int64 barred[QUERIES];
    const Table tables[2] = {{video, video_norm, video_error}, {audio, audio_norm, audio_error}};
    int me = threadIdx.x, lane = me % 32, splits = gridDim.y, split = blockIdx.y;
    int64 q = (int64)blockIdx.x * QUERIES + me, slot = (q - me) * splits + split;
    int64 own = q < count_queries ? queries[q] : -1;
    float bound = LOWEST, off = 0;
    if (own >= 0) off = fmaxf(slack(tables[0], own, greatest[0], greatest[1], rounding),
                              slack(tables[1], own, greatest[2], greatest[3], rounding));
    if (own >= 0 && split == 0) offs[q] = off;
    asked[me] = own, barred[me] = exclude_self ? own : -1;
    count[me] = own < 0 ? OPEN : 0, cut[me] = own < 0 ? NEVER : LOWEST;
    Found found = {cut, found_scores + slot * room, count, found_keys + slot * room, (int64)splits * room};
    Places places;
    find_places(places);
    __syncthreads();
    auto query = [&](int r) { return asked[r]; };
    Tiles tiles(tables, query, split * KEYS, n);
    // Drops what it can of the warp's rows that have more than `most`; those that keep more than `limit` are left open.
    auto prune_rows = [&](int most, int limit) {
        unsigned todo = __ballot_sync(FULL_WARP, count[me] > most);
        for (; todo; todo &= todo - 1) {
            int turn = __ffs(todo) - 1, r = me - lane + turn;
            float raised = __shfl_sync(FULL_WARP, bound, turn), width = __shfl_sync(FULL_WARP, off, turn);
            int kept = prune(found.scores + r * found.pitch, found.keys + r * found.pitch, count[r], k, width, raised);
            if (lane == turn) {
                bound = raised;
                count[me] = kept > limit ? OPEN : kept, cut[me] = kept > limit ? NEVER : bound - off;
            }
            __syncwarp();
        }
    };
    for (int start = split * KEYS; start < n; start += splits * KEYS) {
        Products sums;
        tiles.scores(sums, query, start, start + splits * KEYS, sign);
        admit(sums, places, found, barred, start, n);
        prune_rows(room - KEYS, room - KEYS);
    }
    prune_rows(0, room);
    if (own >= 0) found_counts[q * splits + split] = count[me];
}

// Dynamic shared memory: splits * room doubles, floats and ints. Rows of which a split is open are counted in
// `open_count` and listed in `open_rows` (Q,), in any order. values (Q, k) begin as -inf, rows (Q, k) as -1.
extern "C" __global__ void __launch_bounds__(256) rank_rows(
    const ROW* video, const ROW* audio, int video_width, int audio_width, const int64* queries, int splits, int room,
    int k, int sign, const int* found_keys, const float* found_scores, const int* found_counts, const float* offs,
    float* values, int64* rows, int* open_rows, int* open_count
) {
    extern __shared__ __align__(128) unsigned char memory[];
    double* exact = (double*)memory;
    float* scores = (float*)(exact + splits * room);
    int* keys = (int*)(scores + splits * room);
    int64 r = blockIdx.x;
    int n = 0;
    for (int s = 0; s < splits; s++) {
        int64 split = r * splits + s;
        int count = found_counts[split];
        if (count == OPEN) {  // the same for every thread
            if (threadIdx.x == 0) open_rows[atomicAdd(open_count, 1)] = (int)r;
            return;
        }
        for (int c = threadIdx.x; c < count; c += blockDim.x)
            scores[n + c] = found_scores[split * room + c], keys[n + c] = found_keys[split * room + c];
        n += count;
    }
    __syncthreads();
    float cut = n < k ? LOWEST : kth(scores, n, k) - offs[r] - offs[r];  // by every warp, the same
    Rows x = {video, audio, video_width, audio_width};
    for (int c = threadIdx.x / 32; c < n; c += blockDim.x / 32) {
        double score = scores[c] >= cut ? agreement(x, queries[r], keys[c], sign) : NONE;
        if (threadIdx.x % 32 == 0) exact[c] = score;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < n; c += blockDim.x) {
        int at = exact[c] == NONE ? k : place(exact, keys, n, exact[c], keys[c]);
        if (at < k) values[r * k + at] = (float)exact[c], rows[r * k + at] = keys[c];
    }
}

// Dynamic shared memory: 2 (k + blockDim.x) doubles and as many ints. Blocks take the rows of `open_rows` in turn.
extern "C" __global__ void __launch_bounds__(256) scan_rows(
    const ROW* video, const ROW* audio, int video_width, int audio_width, const int64* queries, const int* open_rows,
    const int* open_count, int n, int k, int sign, int exclude_self, float* values, int64* rows
) {
    extern __shared__ __align__(128) unsigned char memory[];
    int width = k + blockDim.x, warps = blockDim.x / 32, warp = threadIdx.x / 32;
    double *best = (double*)memory, *next = best + width;
    int *keys = (int*)(next + width), *next_keys = keys + width;
    Rows x = {video, audio, video_width, audio_width};
    for (int turn = blockIdx.x; turn < *open_count; turn += gridDim.x) {
        int64 r = open_rows[turn], i = queries[r];
        int filled = 0;
        for (int start = 0; start < n; start += blockDim.x) {
            int better = 0, fresh = min((int)blockDim.x, n - start);
            for (int c = warp; c < fresh; c += warps) {
                double score = exclude_self && start + c == i ? NONE : agreement(x, i, start + c, sign);
                better |= filled < k || score > best[k - 1];
                if (threadIdx.x % 32 == 0) best[filled + c] = score, keys[filled + c] = start + c;
            }
            if (!__syncthreads_or(better)) continue;
            for (int c = threadIdx.x; c < filled + fresh; c += blockDim.x) {
                int at = place(best, keys, filled + fresh, best[c], keys[c]);
                if (at < k) next[at] = best[c], next_keys[at] = keys[c];
            }
            __syncthreads();
            filled = min(k, filled + fresh);
            for (int c = threadIdx.x; c < filled; c += blockDim.x) best[c] = next[c], keys[c] = next_keys[c];
            __syncthreads();
        }
        for (int c = threadIdx.x; c < filled; c += blockDim.x)
            if (best[c] != NONE) values[r * k + c] = (float)best[c], rows[r * k + c] = keys[c];
        __syncthreads();
    }
}
