// Runs a kernel on one thread of the CPU: block after block, the threads of a block as fibers.
//
// A fiber runs thread after thread of the block. When a thread waits in __syncthreads(), another fiber continues with
// the threads that are left; when all threads wait, each fiber is resumed. Launches of a kernel alternate between
// ascending and descending order of the threads, so that a kernel in which a thread reads what another has not written
// yet, or has overwritten, gives wrong numbers in one of two launches.
//
// Fibers switch stacks by `_longjmp`, because `swapcontext` makes a system call each time.

#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#include "fake_cuda.h"

namespace fake_cuda {
namespace {

const std::size_t STACK_BYTES = 64 << 10;

struct Fiber {
    jmp_buf registers;
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    // threadIdx of the thread that waits.
    Uint3 thread;
    bool done;
};

std::vector<std::unique_ptr<Fiber>> fibers;
jmp_buf scheduler;
Fiber *current_fiber;
Module *current_module;
// Runs the next thread of the block until it ends; false if none is left.
std::function<bool()> run_next_thread;

void run_threads() {
    while (run_next_thread()) {
    }
    current_fiber->done = true;
    _longjmp(scheduler, 1);
}

// Returns when the fiber waits or is done, as `resume` does.
void start(Fiber *fiber) {
    current_fiber = fiber;
    fiber->done = false;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber->stack.get();
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, run_threads, 0);
    if (_setjmp(scheduler) == 0) setcontext(&context);
}

void resume(Fiber *fiber) {
    current_fiber = fiber;
    if (_setjmp(scheduler) == 0) _longjmp(fiber->registers, 1);
}

void run_block(const Kernel &kernel, unsigned int threads, bool descending, void **parameters) {
    unsigned int next = 0;
    run_next_thread = [&] {
        if (next == threads) return false;
        *kernel.module->thread = {descending ? threads - 1 - next : next, 0, 0};
        next++;
        kernel.call(parameters);
        return true;
    };
    std::size_t started = 0;
    for (bool waiting = true; waiting;) {
        waiting = false;
        std::size_t started_before = started;
        for (std::size_t index = 0; index < started_before; index++) {
            Fiber *fiber = fibers[index].get();
            if (fiber->done) continue;
            resume(fiber);
            waiting = waiting || !fiber->done;
        }
        while (next < threads) {
            if (started == fibers.size()) fibers.emplace_back(new Fiber);
            Fiber *fiber = fibers[started++].get();
            start(fiber);
            waiting = waiting || !fiber->done;
        }
    }
}

} // namespace

void synchronize_block() {
    Fiber *self = current_fiber;
    self->thread = *current_module->thread;
    if (_setjmp(self->registers) == 0) _longjmp(scheduler, 1);
    *current_module->thread = current_fiber->thread;
}

void launch(Kernel &kernel, unsigned int blocks, unsigned int threads, void **parameters) {
    current_module = kernel.module;
    bool descending = kernel.launches++ % 2 == 1;
    *kernel.module->grid_size = {blocks, 1, 1};
    *kernel.module->block_size = {threads, 1, 1};
    for (unsigned int block = 0; block < blocks; block++) {
        *kernel.module->block = {block, 0, 0};
        kernel.module->poison_shared_memory();
        run_block(kernel, threads, descending, parameters);
    }
}

} // namespace fake_cuda
