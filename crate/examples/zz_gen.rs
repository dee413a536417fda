use attention_tokens::prelude::*;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;
fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let model = Gpt2::from_pretrained(&folder, LoadOptions::default()).unwrap();
    let numbers = vec![1.0_f32; 124_475_904];
    let mut random = fastrand::Rng::with_seed(13);
    let prompt: Vec<u32> = (0..13).map(|_| random.u32(..50257)).collect();
    let o = GenerateOptions::default().max_new_tokens(50).do_sample(false).stop_at_eos(false);
    let sum = |piece: &[f32]| {
        let mut lanes = [0.0_f32; 64];
        piece.chunks_exact(64).for_each(|x| lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += x));
        lanes.iter().sum::<f32>()
    };
    for _ in 0..4 {
        let start = Instant::now();
        for _ in 0..10 {
            black_box(numbers.par_chunks(1 << 16).map(sum).sum::<f32>());
        }
        let read = start.elapsed().as_secs_f64() / 10.0;
        let start = Instant::now();
        black_box(model.generate(prompt.clone(), o.clone()).unwrap());
        let all = start.elapsed().as_secs_f64();
        let start = Instant::now();
        black_box(model.generate(prompt.clone(), o.clone().max_new_tokens(1)).unwrap());
        let first = start.elapsed().as_secs_f64();
        let token = (all - first) / 49.0;
        let start = Instant::now();
        black_box(model.generate(prompt.clone(), o.clone().max_new_tokens(10).do_sample(true).top_p(0.9)).unwrap());
        let sampled = (start.elapsed().as_secs_f64() - first) / 9.0;
        println!(
            "read {:.1} ms ({:.1} GB/s), 50 tokens {:.0} ms, first {:.1} ms, token {:.2} ms, share {:.0} %, sampled {:.2} ms",
            1e3 * read,
            0.498 / read,
            1e3 * all,
            1e3 * first,
            1e3 * token,
            100.0 * read / token,
            1e3 * sampled
        );
    }
}
