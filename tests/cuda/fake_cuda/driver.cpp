// The driver: devices, contexts, memory, modules and launches. Streams and events do nothing, because every call
// finishes its work.

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fake_cuda.h"

using namespace fake_cuda;

namespace {

int device_count() {
    const char *text = std::getenv("FAKE_CUDA_DEVICES");
    return text ? std::atoi(text) : 1;
}

} // namespace

extern "C" {

int cuInit(unsigned int) {
    ENTER("cuInit");
    return device_count() < 0 ? NO_DEVICE : SUCCESS;
}

// NVRTC asks the driver for a private table of functions. It can do without the table, but not without this function.
int cuGetExportTable(const void **, const void *) {
    ENTER("cuGetExportTable");
    return INVALID_VALUE;
}

int cuDeviceGetCount(int *n) {
    ENTER("cuDeviceGetCount");
    *n = device_count();
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    ENTER("cuDeviceGet");
    if (ordinal < 0 || ordinal >= device_count()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int, int) {
    ENTER("cuDeviceGetAttribute");
    *value = 1;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER("cuDevicePrimaryCtxRetain");
    *context = reinterpret_cast<void *>(std::uintptr_t(device) + 1); // any address but null
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    ENTER("cuDevicePrimaryCtxRelease_v2");
    return SUCCESS;
}

int cuCtxSetCurrent(void *context) {
    ENTER("cuCtxSetCurrent");
    current_context = context;
    return SUCCESS;
}

int cuCtxGetCurrent(void **context) {
    ENTER("cuCtxGetCurrent");
    *context = current_context;
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned int) {
    ENTER_CONTEXT("cuEventCreate");
    *event = &call_lock; // any address
    return SUCCESS;
}

int cuEventDestroy_v2(void *) {
    ENTER("cuEventDestroy_v2");
    return SUCCESS;
}

int cuEventRecord(void *, void *) {
    ENTER_CONTEXT("cuEventRecord");
    return SUCCESS;
}

int cuStreamCreate(void **stream, unsigned int) {
    ENTER_CONTEXT("cuStreamCreate");
    *stream = &call_lock;
    return SUCCESS;
}

int cuStreamDestroy_v2(void *) {
    ENTER("cuStreamDestroy_v2");
    return SUCCESS;
}

int cuStreamSynchronize(void *) {
    ENTER_CONTEXT("cuStreamSynchronize");
    return SUCCESS;
}

int cuStreamWaitEvent(void *, void *, unsigned int) {
    ENTER_CONTEXT("cuStreamWaitEvent");
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void **pool, int) {
    ENTER("cuDeviceGetDefaultMemPool");
    *pool = &call_lock;
    return SUCCESS;
}

int cuMemPoolSetAttribute(void *pool, int attribute, void *) {
    ENTER("cuMemPoolSetAttribute");
    const int RELEASE_THRESHOLD = 4;
    return pool == &call_lock && attribute == RELEASE_THRESHOLD ? SUCCESS : INVALID_VALUE;
}

int cuMemAlloc_v2(std::uintptr_t *address, std::size_t bytes) {
    ENTER_CONTEXT("cuMemAlloc_v2");
    return bytes == 0 ? INVALID_VALUE : allocate(address, bytes);
}

int cuMemAllocAsync(std::uintptr_t *address, std::size_t bytes, void *) {
    ENTER_CONTEXT("cuMemAllocAsync");
    return allocate(address, bytes);
}

int cuMemFree_v2(std::uintptr_t address) {
    ENTER_CONTEXT("cuMemFree_v2");
    return release(address);
}

int cuMemFreeAsync(std::uintptr_t address, void *) {
    ENTER_CONTEXT("cuMemFreeAsync");
    return release(address);
}

int cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    ENTER_CONTEXT("cuMemGetInfo_v2");
    *total = total_bytes();
    *free = *total - std::min(*total, allocated_bytes());
    return SUCCESS;
}

int cuMemcpyHtoD_v2(std::uintptr_t to, const void *from, std::size_t bytes) {
    ENTER_CONTEXT("cuMemcpyHtoD_v2");
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(std::uintptr_t to, const void *from, std::size_t bytes, void *) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}

int cuMemcpyDtoH_v2(void *to, std::uintptr_t from, std::size_t bytes) {
    ENTER_CONTEXT("cuMemcpyDtoH_v2");
    if (!is_allocated(from, bytes)) return INVALID_VALUE;
    std::memcpy(to, reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, std::uintptr_t from, std::size_t bytes, void *) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}

int cuMemcpyDtoDAsync_v2(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, void *) {
    ENTER_CONTEXT("cuMemcpyDtoDAsync_v2");
    if (!is_allocated(from, bytes) || !is_allocated(to, bytes)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
}

int cuMemsetD8Async(std::uintptr_t to, unsigned char value, std::size_t bytes, void *) {
    ENTER_CONTEXT("cuMemsetD8Async");
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    std::memset(reinterpret_cast<void *>(to), value, bytes);
    return SUCCESS;
}

// The image of a module is the absolute path of a library of kernels (see nvrtc.cpp), or PTX.
int cuModuleLoadData(void **module, const void *image) {
    ENTER_CONTEXT("cuModuleLoadData");
    auto loaded = new Module;
    const char *path = static_cast<const char *>(image);
    if (path[0] == '/' && path[1] != '/') {
        loaded->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!loaded->library) return INVALID_VALUE;
        auto variable = [&](const char *name) { return static_cast<Uint3 *>(dlsym(loaded->library, name)); };
        loaded->thread = variable("threadIdx");
        loaded->block = variable("blockIdx");
        loaded->block_size = variable("blockDim");
        loaded->grid_size = variable("gridDim");
        *static_cast<void (**)()>(dlsym(loaded->library, "synchronize_block")) = synchronize_block;
        loaded->poison_shared_memory = reinterpret_cast<void (*)()>(dlsym(loaded->library, "poison_shared_memory"));
    } else {
        loaded->ptx = path;
    }
    *module = loaded;
    return SUCCESS;
}

int cuModuleUnload(void *) {
    ENTER("cuModuleUnload");
    return SUCCESS;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER_CONTEXT("cuModuleGetFunction");
    auto owner = static_cast<Module *>(module);
    void (*call)(void **) = nullptr;
    if (owner->library) {
        std::string symbol = std::string(name) + "__call";
        call = reinterpret_cast<void (*)(void **)>(dlsym(owner->library, symbol.c_str()));
    }
    bool in_ptx = owner->ptx.find(".entry " + std::string(name) + "(") != std::string::npos;
    if (!call && !in_ptx) return NOT_FOUND;
    *function = new Kernel{name, owner, call, 0};
    return SUCCESS;
}

int cuLaunchKernel(
    void *function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x, unsigned int block_y,
    unsigned int block_z, unsigned int, void *, void **parameters, void **
) {
    ENTER_CONTEXT("cuLaunchKernel");
    auto kernel = static_cast<Kernel *>(function);
    count("kernel " + kernel->name);
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x == 0 || block_x > 1024 || block_y != 1 || block_z != 1) {
        return INVALID_VALUE;
    }
    if (kernel->call) fake_cuda::launch(*kernel, grid_x, block_x, parameters);
    return SUCCESS;
}

int cuGetErrorName(int status, const char **name) {
    switch (status) {
        case OUT_OF_MEMORY: *name = "out of memory"; break;
        case NO_DEVICE: *name = "no device"; break;
        default: *name = "an error"; break;
    }
    return SUCCESS;
}

int cuGetErrorString(int status, const char **text) {
    return cuGetErrorName(status, text);
}
}
