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
}

#define __global__
#define __device__ static
#define __shared__ static
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
