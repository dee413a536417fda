// Included before the source of kernels, to compile them for the host.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

using std::isfinite;
using std::isnan;

struct Uint3 {
    unsigned int x, y, z;
};

extern "C" {
// Set by the fake driver, before a thread starts or continues.
Uint3 threadIdx, blockIdx, blockDim, gridDim;
void (*synchronize_block)();

// Start and end of the section of shared memory. The linker defines them if a kernel has shared memory.
extern char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

// Called by the fake driver before each block: fills shared memory with NaN, so that a block cannot read the values of
// the one before.
void poison_shared_memory() {
    if (__start_shared_memory) std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
}
}

#define __global__
#define __device__ static
#define __shared__ static __attribute__((section("shared_memory")))
#define __syncthreads() synchronize_block()

static inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

template <class... Parameters, std::size_t... index>
static void call_with(void (*kernel)(Parameters...), void **parameters, std::index_sequence<index...>) {
    kernel(*static_cast<Parameters *>(parameters[index])...);
}

// Calls a kernel with the values at the addresses in `parameters`.
template <class... Parameters>
static void call(void (*kernel)(Parameters...), void **parameters) {
    call_with(kernel, parameters, std::index_sequence_for<Parameters...>());
}
