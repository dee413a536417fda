// The functions of NVIDIA's driver, cuBLAS and NVRTC that this project calls, done by this machine's processor: with it in
// their place, everything but the card itself is tried without a card. `cargo xtask cuda-check` compiles it.
//
// It is stricter than a card. Memory begins as numbers that are none, ends where a page ends that nobody may touch, and is
// gone when it is freed: what reads or writes where it should not, ends the program. Matrices of a product must lie in memory
// that was given out. Kernels are compiled from their source; of a module that is machine code (dfdx's), kernels are counted,
// and do nothing.
//
// STAND_IN_DEVICES: how many cards there are, 1 if it is not set; with -1 the driver itself fails. STAND_IN_MEMORY: a file with
// the number of bytes that may be given out, which may change while a program runs. STAND_IN_CALLS: a file that is written
// when the program ends: the number of calls of each function and kernel, and the most bytes that were given out at a time.

#include <dlfcn.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum Status : int { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201 };

const std::size_t PAGE = 4096;
const std::size_t STACK = 64 << 10;

// One call at a time.
std::recursive_mutex running;
std::map<std::string, long> calls;
thread_local void *context;

void count(const std::string &name) {
    calls[name]++;
}

long from_environment(const char *name, long otherwise) {
    const char *text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

#define ENTER(name)                                     \
    std::lock_guard<std::recursive_mutex> guard(running); \
    count(name)

// Of what needs a card.
#define ENTER_CONTEXT(name) \
    ENTER(name);            \
    if (!context) return INVALID_CONTEXT

#define ENTER_CUBLAS(name) \
    ENTER(name);           \
    if (!context) return 1 // CUBLAS_STATUS_NOT_INITIALIZED

// Memory: address -> bytes.
std::map<std::uintptr_t, std::size_t> given;
std::size_t in_use, most_in_use;

std::size_t most_memory() {
    const char *path = std::getenv("STAND_IN_MEMORY");
    if (!path) return std::size_t(64) << 30;
    std::size_t bytes = 0;
    std::ifstream(path) >> bytes;
    return bytes;
}

int allocate(std::uintptr_t *address, std::size_t bytes) {
    if (in_use + bytes > most_memory()) return OUT_OF_MEMORY;
    std::size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    char *start = static_cast<char *>(mmap(nullptr, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(start + room, PAGE, PROT_NONE);
    *address = reinterpret_cast<std::uintptr_t>(start + room - bytes);
    std::memset(start, 0xff, room);
    given[*address] = bytes;
    in_use += bytes;
    most_in_use = std::max(most_in_use, in_use);
    return SUCCESS;
}

int release(std::uintptr_t address) {
    auto found = given.find(address);
    if (found == given.end()) return INVALID_VALUE;
    std::size_t bytes = found->second, room = (bytes + PAGE - 1) / PAGE * PAGE;
    munmap(reinterpret_cast<char *>(address + bytes - room), room + PAGE);
    given.erase(found);
    in_use -= bytes;
    return SUCCESS;
}

bool is_given(std::uintptr_t address, std::size_t bytes) {
    auto above = given.upper_bound(address);
    if (above == given.begin()) return false;
    auto memory = std::prev(above);
    return address + bytes <= memory->first + memory->second;
}

struct Position {
    unsigned int x, y, z;
};

struct Module {
    void *library = nullptr; // none for PTX
    std::string ptx;
    Position *thread = nullptr, *block = nullptr, *block_size = nullptr, *grid = nullptr;
    void (*forget_shared_memory)() = nullptr;
};

struct Function {
    std::string name;
    Module *module;
    void (*call)(void **);
    long launches;
};

// The threads of a block, which run in turns: a worker takes up thread after thread, and when one waits for the others,
// another worker goes on with those that are left. They begin with the first thread in one launch, and with the last in the
// next, so that a kernel in which a thread reads what another has not written yet, or no longer has, gives wrong numbers in
// one of the two.
// (Between their stacks it goes with `_longjmp`: `swapcontext` calls the kernel each time.)
struct Worker {
    jmp_buf place;
    std::unique_ptr<char[]> stack{new char[STACK]};
    Position thread;
    bool done;
};

std::vector<std::unique_ptr<Worker>> workers;
jmp_buf scheduler;
Worker *current;
std::function<bool()> next_thread; // runs one; false if none is left

Module *running_module;

void wait_for_block() {
    Worker *self = current;
    self->thread = *running_module->thread;
    if (_setjmp(self->place) == 0) _longjmp(scheduler, 1);
    *running_module->thread = current->thread;
}

void work() {
    while (next_thread()) {
    }
    current->done = true;
    _longjmp(scheduler, 1);
}

void go_on_with(Worker *worker) {
    current = worker;
    if (_setjmp(scheduler) == 0) _longjmp(worker->place, 1);
}

void begin(Worker *worker) {
    current = worker;
    worker->done = false;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = worker->stack.get();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, work, 0);
    if (_setjmp(scheduler) == 0) setcontext(&context);
}

void run_block(const Function &function, unsigned int threads, bool last_first, void **parameters) {
    unsigned int next = 0;
    next_thread = [&] {
        if (next == threads) return false;
        *function.module->thread = {last_first ? threads - 1 - next : next, 0, 0};
        next++;
        function.call(parameters);
        return true;
    };
    std::size_t begun = 0;
    for (bool waiting = true; waiting;) {
        waiting = false;
        std::size_t there = begun;
        for (std::size_t index = 0; index < there; index++) {
            Worker *worker = workers[index].get();
            if (worker->done) continue;
            go_on_with(worker);
            waiting = waiting || !worker->done;
        }
        while (next < threads) {
            if (begun == workers.size()) workers.emplace_back(new Worker);
            Worker *worker = workers[begun++].get();
            begin(worker);
            waiting = waiting || !worker->done;
        }
    }
}

struct Program {
    std::string source, library, log;
};

std::string own_folder() {
    Dl_info info;
    dladdr(reinterpret_cast<void *>(&own_folder), &info);
    std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

// Element (row, column) of a matrix that lies column by column, or transposed.
float at(const float *matrix, int operation, int leading, int row, int column) {
    return operation == 0 ? matrix[row + std::int64_t(column) * leading] : matrix[column + std::int64_t(row) * leading];
}

bool lies_there(const float *matrix, int operation, int rows, int columns, int leading) {
    if (operation != 0) std::swap(rows, columns);
    if (leading < rows) return false;
    std::size_t reach = std::size_t(columns - 1) * leading + rows;
    return is_given(reinterpret_cast<std::uintptr_t>(matrix), reach * sizeof(float));
}

int product(
    int operation_a, int operation_b, int m, int n, int k, const float *factor, const float *a, int lda, const float *b, int ldb,
    const float *beta, float *c, int ldc
) {
    bool there = lies_there(a, operation_a, m, k, lda) && lies_there(b, operation_b, k, n, ldb) && lies_there(c, 0, m, n, ldc);
    if (m < 1 || n < 1 || k < 1 || !there) return 7; // CUBLAS_STATUS_INVALID_VALUE
    // Row of `a` by row, so that the inner loop runs along one of the matrices wherever they lie.
    std::vector<float> column(k), sums(m);
    for (int j = 0; j < n; j++) {
        for (int l = 0; l < k; l++) column[l] = at(b, operation_b, ldb, l, j);
        std::fill(sums.begin(), sums.end(), -0.0f); // cuBLAS does not say that no sum of zeros is negative
        if (operation_a == 0) {
            for (int l = 0; l < k; l++) {
                const float *from = a + std::int64_t(l) * lda;
                for (int i = 0; i < m; i++) sums[i] += from[i] * column[l];
            }
        } else {
            for (int i = 0; i < m; i++) {
                const float *from = a + std::int64_t(i) * lda;
                for (int l = 0; l < k; l++) sums[i] += from[l] * column[l];
            }
        }
        for (int i = 0; i < m; i++) {
            float &to = c[i + std::int64_t(j) * ldc];
            to = *beta == 0 ? *factor * sums[i] : *factor * sums[i] + *beta * to;
        }
    }
    return 0;
}

} // namespace

extern "C" {

// The driver.

int cuInit(unsigned int) {
    ENTER("cuInit");
    return from_environment("STAND_IN_DEVICES", 1) < 0 ? NO_DEVICE : SUCCESS;
}

// NVRTC asks the driver for something of its own, takes no for an answer, but wants one.
int cuGetExportTable(const void **, const void *) {
    ENTER("cuGetExportTable");
    return INVALID_VALUE;
}

int cuDeviceGetCount(int *devices) {
    ENTER("cuDeviceGetCount");
    *devices = static_cast<int>(from_environment("STAND_IN_DEVICES", 1));
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    ENTER("cuDeviceGet");
    if (ordinal < 0 || ordinal >= from_environment("STAND_IN_DEVICES", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int, int) {
    ENTER("cuDeviceGetAttribute");
    *value = 1;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **of_device, int device) {
    ENTER("cuDevicePrimaryCtxRetain");
    *of_device = reinterpret_cast<void *>(std::uintptr_t(device) + 1);
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    ENTER("cuDevicePrimaryCtxRelease_v2");
    return SUCCESS;
}

int cuCtxSetCurrent(void *of_device) {
    ENTER("cuCtxSetCurrent");
    context = of_device;
    return SUCCESS;
}

int cuCtxGetCurrent(void **of_device) {
    ENTER("cuCtxGetCurrent");
    *of_device = context;
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned int) {
    ENTER_CONTEXT("cuEventCreate");
    *event = &running;
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
    *stream = &running;
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
    *pool = &given;
    return SUCCESS;
}

int cuMemPoolSetAttribute(void *pool, int attribute, void *) {
    ENTER("cuMemPoolSetAttribute");
    return pool == &given && attribute == 4 ? SUCCESS : INVALID_VALUE;
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

int cuMemGetInfo_v2(std::size_t *left, std::size_t *total) {
    ENTER_CONTEXT("cuMemGetInfo_v2");
    *total = most_memory();
    *left = *total - std::min(*total, in_use);
    return SUCCESS;
}

int cuMemcpyHtoD_v2(std::uintptr_t to, const void *from, std::size_t bytes) {
    ENTER_CONTEXT("cuMemcpyHtoD_v2");
    if (!is_given(to, bytes)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(std::uintptr_t to, const void *from, std::size_t bytes, void *) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}

int cuMemcpyDtoH_v2(void *to, std::uintptr_t from, std::size_t bytes) {
    ENTER_CONTEXT("cuMemcpyDtoH_v2");
    if (!is_given(from, bytes)) return INVALID_VALUE;
    std::memcpy(to, reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, std::uintptr_t from, std::size_t bytes, void *) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}

int cuMemcpyDtoDAsync_v2(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, void *) {
    ENTER_CONTEXT("cuMemcpyDtoDAsync_v2");
    if (!is_given(from, bytes) || !is_given(to, bytes)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
}

int cuMemsetD8Async(std::uintptr_t to, unsigned char value, std::size_t bytes, void *) {
    ENTER_CONTEXT("cuMemsetD8Async");
    if (!is_given(to, bytes)) return INVALID_VALUE;
    std::memset(reinterpret_cast<void *>(to), value, bytes);
    return SUCCESS;
}

// The image of a program of this stand-in is the path of a library.
int cuModuleLoadData(void **module, const void *image) {
    ENTER_CONTEXT("cuModuleLoadData");
    auto loaded = new Module;
    const char *path = static_cast<const char *>(image);
    if (path[0] == '/' && path[1] != '/') {
        loaded->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!loaded->library) return INVALID_VALUE;
        auto position = [&](const char *name) { return static_cast<Position *>(dlsym(loaded->library, name)); };
        loaded->thread = position("threadIdx");
        loaded->block = position("blockIdx");
        loaded->block_size = position("blockDim");
        loaded->grid = position("gridDim");
        *static_cast<void (**)()>(dlsym(loaded->library, "synchronize_block")) = wait_for_block;
        loaded->forget_shared_memory = reinterpret_cast<void (*)()>(dlsym(loaded->library, "forget_shared_memory"));
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
    bool there = owner->library ? call != nullptr : owner->ptx.find(".entry " + std::string(name) + "(") != std::string::npos;
    if (!there) return 500; // CUDA_ERROR_NOT_FOUND
    *function = new Function{name, owner, call, 0};
    return SUCCESS;
}

int cuLaunchKernel(
    void *function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x, unsigned int block_y,
    unsigned int block_z, unsigned int, void *, void **parameters, void **
) {
    ENTER_CONTEXT("cuLaunchKernel");
    auto kernel = static_cast<Function *>(function);
    count("kernel " + kernel->name);
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x == 0 || block_x > 1024 || block_y != 1 || block_z != 1) {
        return INVALID_VALUE;
    }
    if (!kernel->call) return SUCCESS;
    running_module = kernel->module;
    bool last_first = kernel->launches++ % 2 == 1;
    *kernel->module->grid = {grid_x, 1, 1};
    *kernel->module->block_size = {block_x, 1, 1};
    for (unsigned int block = 0; block < grid_x; block++) {
        *kernel->module->block = {block, 0, 0};
        kernel->module->forget_shared_memory();
        run_block(*kernel, block_x, last_first, parameters);
    }
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

// cuBLAS.

int cublasCreate_v2(void **handle) {
    ENTER_CUBLAS("cublasCreate_v2");
    *handle = &calls;
    return SUCCESS;
}

int cublasDestroy_v2(void *) {
    ENTER("cublasDestroy_v2");
    return SUCCESS;
}

int cublasSetStream_v2(void *, void *) {
    ENTER("cublasSetStream_v2");
    return SUCCESS;
}

int cublasSgemm_v2(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *factor, const float *a, int lda, const float *b,
    int ldb, const float *beta, float *c, int ldc
) {
    ENTER_CUBLAS("cublasSgemm_v2");
    return product(operation_a, operation_b, m, n, k, factor, a, lda, b, ldb, beta, c, ldc);
}

int cublasSgemmStridedBatched(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *factor, const float *a, int lda, long long next_a,
    const float *b, int ldb, long long next_b, const float *beta, float *c, int ldc, long long next_c, int products
) {
    ENTER_CUBLAS("cublasSgemmStridedBatched");
    for (int index = 0; index < products; index++) {
        int status = product(
            operation_a, operation_b, m, n, k, factor, a + index * next_a, lda, b + index * next_b, ldb, beta, c + index * next_c, ldc
        );
        if (status != SUCCESS) return status;
    }
    return SUCCESS;
}

int cublasSgemmBatched(
    void *, int operation_a, int operation_b, int m, int n, int k, const float *factor, const float *const *a, int lda,
    const float *const *b, int ldb, const float *beta, float *const *c, int ldc, int products
) {
    ENTER_CUBLAS("cublasSgemmBatched");
    std::size_t bytes = products * sizeof(float *);
    for (auto list : {(std::uintptr_t)a, (std::uintptr_t)b, (std::uintptr_t)c}) {
        if (!is_given(list, bytes)) return 7; // CUBLAS_STATUS_INVALID_VALUE
    }
    for (int index = 0; index < products; index++) {
        int status = product(operation_a, operation_b, m, n, k, factor, a[index], lda, b[index], ldb, beta, c[index], ldc);
        if (status != SUCCESS) return status;
    }
    return SUCCESS;
}

// NVRTC.

int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char *const *, const char *const *) {
    ENTER("nvrtcCreateProgram");
    *program = new Program{source, "", ""};
    return SUCCESS;
}

int nvrtcCompileProgram(void *handle, int, const char *const *) {
    ENTER("nvrtcCompileProgram");
    auto program = static_cast<Program *>(handle);
    std::string folder = "/tmp/stand_in_XXXXXX";
    if (!mkdtemp(&folder[0])) return 11;
    std::string path = folder + "/kernels";
    {
        std::ofstream file(path + ".cpp");
        file << "#include \"on_host.h\"\n" << program->source << "\n";
        std::regex kernel("__global__ void (\\w+)\\(");
        for (std::sregex_iterator it(program->source.begin(), program->source.end(), kernel), end; it != end; ++it) {
            std::string name = (*it)[1];
            file << "extern \"C\" void " << name << "__call(void **parameters) { call(" << name << ", parameters); }\n";
        }
    }
    std::string command = "g++ -std=c++17 -O2 -w -fPIC -shared -I'" + own_folder() + "' -o " + path + ".so " + path + ".cpp 2> " + path + ".log";
    int status = std::system(command.c_str());
    std::stringstream log;
    log << std::ifstream(path + ".log").rdbuf();
    program->log = log.str();
    program->library = path + ".so";
    return status == 0 ? SUCCESS : 6; // NVRTC_ERROR_COMPILATION
}

int nvrtcDestroyProgram(void **program) {
    ENTER("nvrtcDestroyProgram");
    delete static_cast<Program *>(*program);
    return SUCCESS;
}

int nvrtcGetPTXSize(void *program, std::size_t *bytes) {
    *bytes = static_cast<Program *>(program)->library.size() + 1;
    return SUCCESS;
}

int nvrtcGetPTX(void *program, char *ptx) {
    std::strcpy(ptx, static_cast<Program *>(program)->library.c_str());
    return SUCCESS;
}

int nvrtcGetProgramLogSize(void *program, std::size_t *bytes) {
    *bytes = static_cast<Program *>(program)->log.size() + 1;
    return SUCCESS;
}

int nvrtcGetProgramLog(void *program, char *log) {
    std::strcpy(log, static_cast<Program *>(program)->log.c_str());
    return SUCCESS;
}
}

namespace {

// When the program ends.
struct Report {
    ~Report() {
        const char *path = std::getenv("STAND_IN_CALLS");
        if (!path) return;
        std::ofstream file(path);
        for (auto &[name, times] : calls) file << times << " " << name << "\n";
        file << most_in_use << " bytes\n";
    }
} report;

} // namespace
