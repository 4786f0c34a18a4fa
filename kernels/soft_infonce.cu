// variants: REAL=float; REAL=__half; REAL=__nv_bfloat16; REAL=__half,TENSOR=70; REAL=__nv_bfloat16,TENSOR=80
//
// soft_infonce: sums of exponentials over rows of left right^T * scale, and their gradient, without the matrix.
//
// row_totals   grid ceil(rows / 64), block 256. Log-sum-exp of each of `rows` rows of left over all valid columns, with
//              one running maximum and sum a row; the products of own pairs (same sample) go to `own`.
// row_weights  grid ceil(rows / 64), block 256. Sums over each row of clamp(exp(product - unit)), other samples only.
// row_pull     grid (ceil(rows / 64), ceil(width / 128)), block 256. The gradient at the same rows of left, of products
//                  row_gradient exp(product - row_total) + column_gradient exp(product - column_total)
//              plus that of own pairs. For the gradient at `right` the two change places.
//
// A row belongs to one block, which adds columns in ascending order: no atomics, the same result every time. The
// columns' log-sum-exps are the rows' of the transposed problem. Rows are first … first + rows of the batch; all
// vectors have one element for every row or column of the batch. Products are summed in float32: by tensor cores from
// 16-bit operands under TENSOR, else by fused multiply-adds. Equal to soft_infonce_cpu.py but for rounding.
#include "common.cuh"
#if defined(TENSOR) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 10 * TENSOR
#undef TENSOR  // TENSOR is the least architecture with tensor cores for REAL
#endif
#ifdef TENSOR
#include <mma.h>
#endif

constexpr int TILE = 64, DEPTH = 32, OUT = 128, THREADS = 256;
constexpr int PITCH = TILE + 4;  // of a tile of products, in floats: wmma stores need a multiple of 4
constexpr int PAD = DEPTH + 8;   // of a staged operand, in elements: a multiple of 8
constexpr float LOWEST = -1.7e38f;

struct Stage {
    alignas(32) REAL left[TILE][PAD], right[TILE][PAD];
};

__device__ void stage(REAL (*to)[PAD], const REAL* x, int64 row0, int64 limit, int column0, int width) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
        int64 row = row0 + i / DEPTH;
        int column = column0 + i % DEPTH;
        bool inside = row < limit && column < width;
        to[i / DEPTH][i % DEPTH] = inside ? x[row * width + column] : from_float<REAL>(0.f);
    }
}

// products[r][c] of 64 rows and 64 columns, times scale. All threads; begins and ends with a barrier.
__device__ void multiply(float (*products)[PITCH], Stage& s, const REAL* left, const REAL* right, int64 row0,
                         int64 last_row, int64 column0, int64 last_column, int width, float scale) {
#ifdef TENSOR
    using namespace nvcuda;
    int warp = threadIdx.x / 32, strip = warp / 2, half = warp % 2 * 2;  // 16 rows, two of four blocks of columns
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[2];
    for (int j = 0; j < 2; j++) wmma::fill_fragment(sum[j], 0.f);
#else
    int r0 = threadIdx.x / 16, c0 = threadIdx.x % 16;
    float sum[4][4] = {};
#endif
    for (int d = 0; d < width; d += DEPTH) {
        __syncthreads();
        stage(s.left, left, row0, last_row, d, width);
        stage(s.right, right, column0, last_column, d, width);
        __syncthreads();
#ifdef TENSOR
        for (int k = 0; k < DEPTH; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, REAL, wmma::row_major> a;
            wmma::load_matrix_sync(a, &s.left[16 * strip][k], PAD);
            for (int j = 0; j < 2; j++) {
                wmma::fragment<wmma::matrix_b, 16, 16, 16, REAL, wmma::col_major> b;
                wmma::load_matrix_sync(b, &s.right[16 * (half + j)][k], PAD);
                wmma::mma_sync(sum[j], a, b, sum[j]);
            }
        }
#else
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] += to_float(s.left[r0 + 16 * i][k]) * to_float(s.right[c0 + 16 * j][k]);
#endif
    }
#ifdef TENSOR
    for (int j = 0; j < 2; j++) {
        for (int i = 0; i < sum[j].num_elements; i++) sum[j].x[i] *= scale;
        wmma::store_matrix_sync(&products[16 * strip][16 * (half + j)], sum[j], PITCH, wmma::mem_row_major);
    }
#else
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) products[r0 + 16 * i][c0 + 16 * j] = sum[i][j] * scale;
#endif
    __syncthreads();
}

// Four neighbouring threads share a row of a tile: sums and maxima over them.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_WARP, x, 1);
    return x + __shfl_xor_sync(FULL_WARP, x, 2);
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

extern "C" __global__ void __launch_bounds__(THREADS)
row_totals(const REAL* left, const REAL* right, const bool* valid, float* totals, float* own, int64 first, int64 rows,
           int64 columns, int width, int views, float scale, int others_only) {
    __shared__ float products[TILE][PITCH];
    __shared__ Stage s;
    int64 row0 = first + (int64)blockIdx.x * TILE, last = first + rows, row = row0 + threadIdx.x / 4;
    float most = LOWEST, sum = 0.f;
    for (int64 column0 = 0; column0 < columns; column0 += TILE) {
        multiply(products, s, left, right, row0, last, column0, columns, width, scale);
        float* line = products[threadIdx.x / 4];
        float here = LOWEST;
        for (int j = threadIdx.x % 4; j < TILE; j += 4) {
            int64 column = column0 + j;
            bool mine = row < last && column < columns && row / views == column / views;
            if (mine) own[row * views + column % views] = line[j];
            if (column >= columns || !valid[column / views] || (mine && others_only)) line[j] = -3.4e38f;
            here = fmaxf(here, line[j]);
        }
        here = fmaxf(most, quad_max(here));
        float added = 0.f;
        for (int j = threadIdx.x % 4; j < TILE; j += 4) added += expf(line[j] - here);
        sum = sum * expf(most - here) + quad_sum(added);
        most = here;
    }
    if (threadIdx.x % 4 == 0 && row < last) totals[row] = sum > 0.f ? most + logf(sum) : LOWEST;
}

extern "C" __global__ void __launch_bounds__(THREADS)
row_weights(const REAL* left, const REAL* right, const bool* valid, const float* unit, float* sums, int64 first,
            int64 rows, int64 columns, int width, int views, float scale, float least, float greatest) {
    __shared__ float products[TILE][PITCH];
    __shared__ Stage s;
    int64 row0 = first + (int64)blockIdx.x * TILE, last = first + rows, row = row0 + threadIdx.x / 4;
    float sum = 0.f, one = row < last ? unit[row] : 0.f;
    for (int64 column0 = 0; column0 < columns; column0 += TILE) {
        multiply(products, s, left, right, row0, last, column0, columns, width, scale);
        float added = 0.f;
        for (int j = threadIdx.x % 4; j < TILE; j += 4) {
            int64 column = column0 + j;
            if (column >= columns || !valid[column / views] || row / views == column / views) continue;
            added += fminf(fmaxf(expf(products[threadIdx.x / 4][j] - one), least), greatest);
        }
        sum += quad_sum(added);
    }
    if (threadIdx.x % 4 == 0 && row < last) sums[row] = valid[row / views] ? sum : 0.f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
row_pull(const REAL* left, const REAL* right, const bool* valid, const float* row_total, const float* row_gradient,
         const float* column_total, const float* column_gradient, const float* own, REAL* gradient, int64 first,
         int64 rows, int64 first_column, int64 columns, int width, int views, float scale, int others_only) {
    __shared__ float products[TILE][PITCH];
    __shared__ Stage s;
    int64 row0 = first + (int64)blockIdx.x * TILE, last = first + rows, last_column = first_column + columns;
    int out0 = blockIdx.y * OUT, lane = threadIdx.x % 32, line0 = threadIdx.x / 32 * 8;
    float sum[8][OUT / 32] = {};  // 8 rows a warp, every 32nd column
    for (int64 column0 = first_column; column0 < last_column; column0 += TILE) {
        multiply(products, s, left, right, row0, last, column0, last_column, width, scale);
        for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
            int64 row = row0 + i / TILE, column = column0 + i % TILE, sample = row / views;
            float& t = products[i / TILE][i % TILE];
            float flow = 0.f;
            if (row < last && column < last_column && valid[sample] && valid[column / views]) {
                bool mine = sample == column / views;
                if (!mine || !others_only) {
                    if (row_gradient[row] != 0.f) flow += row_gradient[row] * expf(t - row_total[row]);
                    if (column_gradient[column] != 0.f)
                        flow += column_gradient[column] * expf(t - column_total[column]);
                }
                if (mine) flow += own[row * views + column % views];
            }
            t = flow;
        }
        __syncthreads();
        int64 here = last_column - column0 < TILE ? last_column - column0 : TILE;
        for (int c = 0; c < here; c++)
            for (int j = 0; j < OUT / 32; j++) {
                int d = out0 + lane + 32 * j;
                float x = d < width ? to_float(right[(column0 + c) * width + d]) : 0.f;
                for (int i = 0; i < 8; i++) sum[i][j] += products[line0 + i][c] * x;
            }
    }
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < OUT / 32; j++) {
            int64 row = row0 + line0 + i;
            int d = out0 + lane + 32 * j;
            if (row < last && d < width) gradient[row * width + d] = from_float<REAL>(sum[i][j] * scale);
        }
}
