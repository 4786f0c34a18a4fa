// Stands in for the launch of a kernel from the host: arguments by pointer, the limits of a GPU, and threadIdx and
// its like. cuda_on_cpu.py asks for the parameters' types.
#pragma once

namespace cuda_on_cpu {

// One letter and the size for an argument's type: i4, f4, ...; p and the same for what a pointer points to.
template <class T> std::string kind() {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) return "p" + kind<std::remove_pointer_t<U>>();
    else if constexpr (std::is_void_v<U>) return "*";
    else if constexpr (std::is_same_v<U, bool>) return "b1";
    else if constexpr (std::is_integral_v<U>) return (std::is_signed_v<U> ? "i" : "u") + std::to_string(sizeof(U));
    else if constexpr (std::is_floating_point_v<U>) return "f" + std::to_string(sizeof(U));
    else return U::kind();
}

template <class... A> std::string kinds(void (*)(A...)) {
    std::string text;
    ((text += kind<A>() + " "), ...);
    return text;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...);
}

// What a GPU would refuse.
inline bool launchable(size_t shared_bytes) {
    const dim3 &g = grid_size, &b = block_size;
    uint64_t count = uint64_t(b.x) * b.y * b.z;
    if (!g.x || !g.y || !g.z || !count) return fail("the grid or the block is empty");
    if (g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) return fail("the grid is too large: 2^31 - 1, 65535, 65535");
    if (count > 1024 || b.z > 64) return fail("the block is too large: 1024 threads, 64 in z");
    return shared_bytes <= SHARED_MAX || fail("more than 227 KiB of dynamic shared memory");
}

// Returns an empty text, or what went wrong.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared_bytes,
                   void** args, int reverse) {
    grid_size = dim3(grid[0], grid[1], grid[2]);
    block_size = dim3(block[0], block[1], block[2]);
    auto one_thread = [&] { call(kernel, args, std::index_sequence_for<A...>{}); };
    body = [](void* f) { (*static_cast<decltype(one_thread)*>(f))(); };
    body_args = &one_thread;
    failure.clear();
    if (launchable(shared_bytes)) {
        start_threads();
        run_grid(shared_bytes, reverse);
    }
    return failure.c_str();
}

}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::current->index)
#define blockIdx (cuda_on_cpu::block_index)
#define blockDim (cuda_on_cpu::block_size)
#define gridDim (cuda_on_cpu::grid_size)
constexpr int warpSize = 32;
