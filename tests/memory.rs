//! The memory of a sweep against its option, and of foreign files against their sizes. A program of its own, because it
//! counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use attention_tokens::patching::*;
use attention_tokens::prelude::*;

mod costs;
#[allow(dead_code)] // the integration tests' helpers
mod support;

/// The bytes that are allocated, and the most that were since the last [`peak_of`].
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may exist for a moment.
        grow(new_size);
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        LIVE.fetch_sub(layout.size(), Relaxed);
        moved
    }
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

/// The most bytes that a function has allocated at a time, beyond those that were before.
fn peak_of<T>(function: impl FnOnce() -> T) -> (usize, T) {
    // Dropping a model empties the pool of buffers, which the function would otherwise use unseen.
    drop(Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap());
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = function();
    (PEAK.load(Relaxed) - before, result)
}

/// The tests count allocations of the whole process, so only one of them may run.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MIB: usize = 1 << 20;

/// Sweeps of 32 heads in a model of 4 layers, over 4 prompts of 120 tokens.
#[test]
fn a_sweep_takes_no_more_memory_than_its_option_says() {
    let _alone = alone();
    let model = Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap();
    let config = model.config().clone();
    let (n, pos) = (4, 120);
    let prompts = |step: usize| -> Vec<Vec<u32>> {
        let token = |prompt: usize, at: usize| ((prompt * 31 + at * step) % config.d_vocab) as u32;
        (0..n).map(|prompt| (0..pos).map(|at| token(prompt, at)).collect()).collect()
    };
    let (clean, corrupted) = (prompts(7), prompts(11));
    let options = || RunOptions::default().no_logits();
    let z_and_pattern = options().activations([Activation::Z, Activation::Pattern]);
    let (_, cache) = model.run_with_cache_options(corrupted, z_and_pattern).unwrap();
    let held = [Activation::Z, Activation::Pattern];
    held.iter().for_each(|&held| {
        (0..config.n_layers).for_each(|layer| {
            (0..n).for_each(|prompt| drop(cache.prompt(prompt).unwrap().get(held, layer).unwrap()));
        })
    });
    // The unchanged run keeps K, V and the residual stream of every layer, and is computed like any other.
    let rows = n * pos;
    let floats_of_row = 10 * config.d_model + 2 * config.d_mlp;
    let unchanged = size_of::<f32>() * rows * (3 * config.n_layers * config.d_model + floats_of_row);

    type Sweeping<'a> = &'a dyn Fn(SweepOptions) -> Sweep;
    use attention_tokens::Sweep;
    let diff = Metric::logit_diff(&[[1, 2]]);
    let zero = |options| head_effects(&model, clean.clone(), &diff, Ablation::Zero, options).unwrap();
    let mean = |options| head_effects(&model, clean.clone(), &diff, Ablation::Mean(cache.clone()), options).unwrap();
    // Logits of every position, which is most of the memory: of shorter prompts, computed one run after the other.
    let short: Vec<Vec<u32>> = clean.iter().map(|prompt| prompt[..10].to_vec()).collect();
    let loss = |options| head_effects(&model, short.clone(), &Metric::loss(), Ablation::Zero, options).unwrap();
    let pattern = |options| {
        let axes = [PatchAxis::Head];
        generic_activation_patch(&model, clean.clone(), &cache, &diff, Activation::Pattern, &axes, options).unwrap()
    };
    let paths = |options| path_patch(&model, clean.clone(), &cache, &Receiver::Logits, &diff, options).unwrap();
    // What a model computes for the first metric is the model's.
    diff.measure(&model, vec![1_u32, 2]).unwrap();
    let to_queries = Receiver::Queries(vec![(3, 0), (2, 1)]);
    let queries = |options| path_patch(&model, clean.clone(), &cache, &to_queries, &diff, options).unwrap();
    let sweeps: [(&str, Sweeping); 6] = [
        ("zero", &zero),
        ("mean", &mean),
        ("loss", &loss),
        ("pattern", &pattern),
        ("paths", &paths),
        ("queries", &queries),
    ];
    for (name, sweep) in sweeps {
        let mut last: Option<(usize, Sweep)> = None;
        for max_bytes in [12 * MIB, 96 * MIB] {
            let (peak, values) = peak_of(|| sweep(SweepOptions::default().max_bytes(max_bytes).progress(false)));
            println!("{name}: {} of {} + {} MiB", peak / MIB, max_bytes / MIB, unchanged / MIB);
            assert!(peak <= max_bytes + unchanged, "{name}: {peak} bytes, allowed {max_bytes} and {unchanged}");
            if let Some((less, before)) = last {
                // The option has an effect: with more memory, more runs at a time, of the same numbers.
                assert!(name == "loss" || peak > less + less / 2, "{name}: {less}, then {peak} bytes");
                let worst = (&values.values - &before.values).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
                assert!(worst < 1e-4, "{name}: {worst}");
            }
            last = Some((peak, values));
        }
    }
}
