// What a kernel's source needs to be compiled for the host, in front of it.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

using std::isnan;

struct Position {
    unsigned int x, y, z;
};

extern "C" {
// Set by the stand-in, before it goes on with a thread.
Position threadIdx, blockIdx, blockDim, gridDim;
void (*synchronize_block)();

// Shared memory, from the linker; there is none if no kernel has any.
extern char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

// Called by the stand-in before each block: what a block before has left is not there.
void forget_shared_memory() {
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

// Calls a kernel with the addresses of its parameters.
template <class... Parameters, std::size_t... index>
static void call_each(void (*kernel)(Parameters...), void **parameters, std::index_sequence<index...>) {
    kernel(*static_cast<Parameters *>(parameters[index])...);
}

template <class... Parameters>
static void call(void (*kernel)(Parameters...), void **parameters) {
    call_each(kernel, parameters, std::index_sequence_for<Parameters...>());
}
