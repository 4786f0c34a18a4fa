// Tiles of float32 codes of any width, multiplied a few columns at a time. For agreement_tile.cuh.
#pragma once

constexpr int DEPTH = 16, PITCH = DEPTH + 4;  // columns at a time; a multiple of 4 that spreads rows over the banks

// As above, a few columns at a time, for tables of any width. All threads; begins and ends with a barrier.
template <typename Query, typename Key>
__device__ void multiply(Products& sum, const Code* codes, int width, Query query, Key key) {
    __shared__ __align__(128) float queries[QUERIES * PITCH];
    __shared__ __align__(128) float keys[KEYS * PITCH];
    int lane = threadIdx.x % 32, first = threadIdx.x - lane + lane / 8;
    for (int p = 0; p < STRIPS * PARTS * EACH; p++) sum.part[p / EACH / PARTS][p / EACH % PARTS].x[p % EACH] = 0;
    for (int d = 0; d < width; d += DEPTH) {
        __syncthreads();
        stage<DEPTH, PITCH>(queries, QUERIES, codes, width, d, query);
        stage<DEPTH, PITCH>(keys, KEYS, codes, width, d, key);
        copies_done();
        __syncthreads();
#pragma unroll 1
        for (int c = 0; c < DEPTH; c += 4) {
            float4 x[4 * STRIPS];
#pragma unroll
            for (int i = 0; i < 4 * STRIPS; i++) x[i] = *(const float4*)(queries + (first + 4 * i) * PITCH + c);
#pragma unroll
            for (int j = 0; j < 2 * PARTS; j++) {
                float4 y = *(const float4*)(keys + (lane % 8 + 8 * j) * PITCH + c);
#pragma unroll
                for (int i = 0; i < 4 * STRIPS; i++) {
                    float& to = sum.part[i / 4][j / 2].x[i % 4 * 2 + j % 2];
                    to = fmaf(x[i].w, y.w, fmaf(x[i].z, y.z, fmaf(x[i].y, y.y, fmaf(x[i].x, y.x, to))));
                }
            }
        }
    }
    __syncthreads();
}

struct Tiles {
    const Table* tables;
    int n;

    template <typename Query> __device__ Tiles(const Table* tables, Query, int, int n) : tables(tables), n(n) {}

    template <typename Query> __device__ void scores(Products& a, Query query, int start, int, int sign) {
        auto key = [&](int r) { return start + r < n ? start + r : -1; };
        multiply(a, tables[0].codes, VIDEO, query, key);
        if constexpr (BOTH) {
            Products b;
            multiply(b, tables[1].codes, AUDIO, query, key);
            combine(a, b, sign);
        }
    }
};

__device__ void find_places(Places& places) {
    int lane = threadIdx.x % 32;
    for (int e = 0; e < EACH; e++) places.number[e] = 16 * (lane / 8 + e / 2 * 4) + lane % 8 + e % 2 * 8;
}
