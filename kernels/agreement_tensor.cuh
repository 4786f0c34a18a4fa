// Tiles of half codes, multiplied by tensor cores. For agreement_tile.cuh, which says what the words mean.
#pragma once

template <int WIDTH> __device__ __forceinline__ void multiply(Products& sum, const Code* queries, const Code* keys) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a[STRIPS];
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> b;
#pragma unroll
    for (int p = 0; p < STRIPS * PARTS; p++) wmma::fill_fragment(sum.part[p / PARTS][p % PARTS], 0.0f);
#pragma unroll 4
    for (int c = 0; c < WIDTH; c += 16) {
#pragma unroll
        for (int s = 0; s < STRIPS; s++) wmma::load_matrix_sync(a[s], queries + 16 * s * (WIDTH + 8) + c, WIDTH + 8);
#pragma unroll
        for (int t = 0; t < PARTS; t++) {
            wmma::load_matrix_sync(b, keys + 16 * t * (WIDTH + 8) + c, WIDTH + 8);
#pragma unroll
            for (int s = 0; s < STRIPS; s++) wmma::mma_sync(sum.part[s][t], a[s], b, sum.part[s][t]);
        }
    }
}

// Scores of tile after tile of keys. The queries' codes stay in shared memory; the keys' come in turns into two buffers,
// one of which is filled while the other is read. Rows are 8 codes longer than wide: no two rows in one bank.
struct Tiles {
    static constexpr int PITCHES = VIDEO + 8 + (BOTH ? AUDIO + 8 : 0);  // of a row of both modalities
    const Table* tables;
    Code *asked, *keys;
    int turn, n;

    template <typename Index> __device__ void take(Code* to, int rows, Index index) const {
        stage<VIDEO, VIDEO + 8>(to, rows, tables[0].codes, VIDEO, 0, index);
        if constexpr (BOTH) stage<AUDIO, AUDIO + 8>(to + rows * (VIDEO + 8), rows, tables[1].codes, AUDIO, 0, index);
    }

    __device__ void take_keys(int start) const {
        if (start < n) take(keys + turn * KEYS * PITCHES, KEYS, [&](int r) { return start + r < n ? start + r : -1; });
    }

    template <typename Query> __device__ Tiles(const Table* tables, Query query, int start, int n)
        : tables(tables), turn(0), n(n) {
        extern __shared__ __align__(128) unsigned char memory[];
        asked = (Code*)memory, keys = asked + QUERIES * PITCHES;
        take(asked, QUERIES, query);
        take_keys(start);
    }

    // Scores of the keys from `start` on, while those from `next` on are fetched. All threads.
    template <typename Query> __device__ void scores(Products& a, Query, int, int next, int sign) {
        copies_done();
        __syncthreads();  // all codes are here, and nobody reads the other buffer any more
        const Code *against = keys + turn * KEYS * PITCHES;
        turn ^= 1;
        take_keys(next);
        int row = threadIdx.x / 32 * 32;
        multiply<VIDEO>(a, asked + row * (VIDEO + 8), against);
        if constexpr (BOTH) {
            Products b;
            multiply<AUDIO>(b, asked + QUERIES * (VIDEO + 8) + row * (AUDIO + 8), against + KEYS * (VIDEO + 8));
            combine(a, b, sign);
        }
    }
};

__device__ void find_places(Places& places) {
    __shared__ __align__(128) float numbers[256];
    for (int i = threadIdx.x; i < 256; i += QUERIES) numbers[i] = __int_as_float(i);  // loads do not look at bits
    __syncthreads();
    Part part;
    wmma::load_matrix_sync(part, numbers, 16, wmma::mem_row_major);
    static_assert(Part::num_elements == EACH, "a lane's share of a 16 x 16 part");
#pragma unroll
    for (int e = 0; e < EACH; e++) places.number[e] = __float_as_int(part.x[e]);
}
