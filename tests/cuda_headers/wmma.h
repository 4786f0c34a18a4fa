// Stands in for mma.h, the tensor cores: tiles spread over the lanes of a warp, and their products, which the whole
// warp has to come for.
#pragma once

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
