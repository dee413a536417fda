// The memory of the fake GPU.

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "fake_cuda.h"

namespace fake_cuda {
namespace {

const std::size_t PAGE = 4096;

// Address -> bytes.
std::map<std::uintptr_t, std::size_t> allocations;
std::size_t allocated, peak_allocated;

std::size_t whole_pages(std::size_t bytes) {
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

} // namespace

std::size_t total_bytes() {
    const char *path = std::getenv("FAKE_CUDA_MEMORY");
    if (!path) return std::size_t(64) << 30;
    std::size_t bytes = 0;
    std::ifstream(path) >> bytes;
    return bytes;
}

std::size_t allocated_bytes() {
    return allocated;
}

std::size_t peak_allocated_bytes() {
    return peak_allocated;
}

// The memory ends where an inaccessible page begins.
int allocate(std::uintptr_t *address, std::size_t bytes) {
    if (allocated + bytes > total_bytes()) return OUT_OF_MEMORY;
    std::size_t mapped = whole_pages(bytes);
    char *start =
        static_cast<char *>(mmap(nullptr, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(start + mapped, PAGE, PROT_NONE);
    *address = reinterpret_cast<std::uintptr_t>(start + mapped - bytes);
    std::memset(start, 0xff, mapped); // NaN
    allocations[*address] = bytes;
    allocated += bytes;
    peak_allocated = std::max(peak_allocated, allocated);
    return SUCCESS;
}

int release(std::uintptr_t address) {
    auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    std::size_t bytes = found->second, mapped = whole_pages(bytes);
    munmap(reinterpret_cast<char *>(address + bytes - mapped), mapped + PAGE);
    allocations.erase(found);
    allocated -= bytes;
    return SUCCESS;
}

bool is_allocated(std::uintptr_t address, std::size_t bytes) {
    auto above = allocations.upper_bound(address);
    if (above == allocations.begin()) return false;
    auto [start, size] = *std::prev(above);
    return address + bytes <= start + size;
}

} // namespace fake_cuda
