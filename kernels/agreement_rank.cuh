// Which of a row's candidates may be among its k best, and exact scores of rows. For agreement_topk.cu.
#pragma once
#include "common.cuh"

constexpr float LOWEST = -3.0e38f;
#define NONE ((double)__int_as_float(0xff800000))  // minus infinity

// A value that at least k of n >= k scores reach, and hardly more do. A warp.
__device__ float kth(const float* scores, int n, int k) {
    int lane = threadIdx.x % 32;
    float low = -LOWEST, high = LOWEST;
    for (int c = lane; c < n; c += 32) low = fminf(low, scores[c]), high = fmaxf(high, scores[c]);
    low = warp_min(low), high = warp_max(high);
    for (int step = 0, reach = n; step < 24 && reach > k + k / 8; step++) {
        float middle = 0.5f * low + 0.5f * high;
        int here = 0;
        for (int c = 0; c < n; c += 32) here += __popc(__ballot_sync(FULL_WARP, c + lane < n && scores[c + lane] >= middle));
        if (here >= k) low = middle, reach = here; else high = middle;
    }
    return low;
}

// A warp drops those of a row's n candidates that cannot be among the k best, and returns how many are left. All scores
// of a row are off by no more than `off`: the k-th score less `off` is a lower bound of the k-th best, which `bound` becomes.
__device__ int prune(float* scores, int* keys, int n, int k, float off, float& bound) {
    int lane = threadIdx.x % 32, kept = 0;
    if (n >= k) bound = fmaxf(bound, kth(scores, n, k) - off);
    for (int c = 0; c < n; c += 32) {
        bool in = c + lane < n;
        float score = in ? scores[c + lane] : 0;
        int key = in ? keys[c + lane] : 0;
        bool keep = in && score + off >= bound;
        unsigned votes = __ballot_sync(FULL_WARP, keep);
        int at = kept + __popc(votes & ((1u << lane) - 1));
        __syncwarp();
        if (keep) scores[at] = score, keys[at] = key;
        kept += __popc(votes);
        __syncwarp();
    }
    return kept;
}

// --- exact scores: 32 partial sums in float64, one a lane, added by halves (see agreement_exact.py) --------

// Both modalities' rows (N, width) as given; the same pointer twice where only one matters.
struct Rows {
    const ROW *video, *audio;
    int video_width, audio_width;
};

// x.y of (width,) rows, by a warp; products of float32 are exact in float64, __dmul_rn keeps those of float64 apart.
__device__ double product(const ROW* x, const ROW* y, int width) {
    double sum = 0;
    for (int c = threadIdx.x % 32; c < width; c += 32) sum = __dadd_rn(sum, __dmul_rn((double)x[c], (double)y[c]));
    for (int half = 16; half > 0; half /= 2) sum = __dadd_rn(sum, __shfl_down_sync(FULL_WARP, sum, half));
    return __shfl_sync(FULL_WARP, sum, 0);
}

__device__ double agreement(const Rows& x, int64 i, int64 j, int sign) {
    double a = product(x.video + i * x.video_width, x.video + j * x.video_width, x.video_width);
    if (x.audio == x.video) return a;
    double b = product(x.audio + i * x.audio_width, x.audio + j * x.audio_width, x.audio_width);
    return sign > 0 ? (a < b ? a : b) : (a > b ? a : b);
}

// How many of n (score, key) come before this one.
__device__ int place(const double* scores, const int* keys, int n, double score, int key) {
    int before = 0;
    for (int c = 0; c < n; c++) before += scores[c] > score || (scores[c] == score && keys[c] < key);
    return before;
}
