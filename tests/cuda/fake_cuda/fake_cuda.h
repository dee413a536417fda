// A fake of NVIDIA's driver, cuBLAS and NVRTC that computes on the CPU, to test the feature `cuda` on a machine without
// a GPU. It has the functions that this project calls. `cargo xtask cuda-check` compiles it.
//
// It is stricter than a GPU. Memory is filled with NaN when it is allocated, ends at a page that cannot be accessed,
// and is unmapped when it is freed: an access beyond its end, or after it is freed, ends the program. The matrices of a
// product must be inside allocated memory. Kernels are compiled from their source for the CPU. Those of a module in
// machine code (dfdx's) are counted and do nothing.
//
// Environment variables:
// - FAKE_CUDA_DEVICES: the number of GPUs, 1 by default; with -1 the driver cannot be initialized.
// - FAKE_CUDA_MEMORY: a file with the GPU's memory in bytes, read at every allocation; 64 GiB by default.
// - FAKE_CUDA_CALLS: a file that is written when the program ends: the number of calls of each function and kernel, and
//   the peak of allocated bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

namespace fake_cuda {

// CUresult.
enum Status : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
};

// calls.cpp

// Locked during a call: calls run one at a time.
extern std::recursive_mutex call_lock;
// The thread's current context, null if it has none.
extern thread_local void *current_context;

// Counts a call of a function, or a launch of a kernel.
void count(const std::string &name);

// memory.cpp

int allocate(std::uintptr_t *address, std::size_t bytes);
int release(std::uintptr_t address);
// Whether a range is inside one allocation.
bool is_allocated(std::uintptr_t address, std::size_t bytes);
// The GPU's memory.
std::size_t total_bytes();
std::size_t allocated_bytes();
std::size_t peak_allocated_bytes();

// blocks.cpp

struct Uint3 {
    unsigned int x, y, z;
};

struct Module {
    // A library with the kernels; null for PTX.
    void *library = nullptr;
    std::string ptx;
    // The library's variables and functions, see on_host.h.
    Uint3 *thread = nullptr, *block = nullptr, *block_size = nullptr, *grid_size = nullptr;
    void (*poison_shared_memory)() = nullptr;
};

struct Kernel {
    std::string name;
    Module *module;
    void (*call)(void **parameters);
    long launches;
};

// __syncthreads() of the kernel that runs.
void synchronize_block();
// Runs all blocks of a launch.
void launch(Kernel &kernel, unsigned int blocks, unsigned int threads, void **parameters);

} // namespace fake_cuda

#define ENTER(name)                                                    \
    std::lock_guard<std::recursive_mutex> guard(fake_cuda::call_lock); \
    fake_cuda::count(name)

// For a function of the driver that needs a context.
#define ENTER_CONTEXT(name) \
    ENTER(name);            \
    if (!fake_cuda::current_context) return fake_cuda::INVALID_CONTEXT

// For a function of cuBLAS that needs a context.
#define ENTER_CUBLAS(name) \
    ENTER(name);           \
    if (!fake_cuda::current_context) return 1 // CUBLAS_STATUS_NOT_INITIALIZED
