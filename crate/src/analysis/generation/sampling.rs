//! The random choice of the next token from its logits.

use rand::Rng;

use super::options::GenerateOptions;
use crate::decode::TopTokensBuilder;
use crate::random::SeededRng;

/// A token, and its logit after temperature and penalties.
type Scored = (u32, f64);

/// Tokens that are sorted first when `top_p` asks for the most likely ones. GPT-2 rarely needs more.
const SORTED_FIRST: usize = 256;

/// The next token. `tokens` are the prompt's own and those generated so far. Shape: `logits [d_vocab]`, not empty.
pub(super) fn next_token(options: &GenerateOptions, rng: &mut SeededRng, logits: &[f32], tokens: &[u32]) -> u32 {
    let mut scored: Vec<Scored> =
        logits.iter().enumerate().map(|(token, &x)| (token as u32, f64::from(x) / options.temperature)).collect();
    if options.freq_penalty > 0.0 {
        tokens.iter().for_each(|&token| scored[token as usize].1 -= options.freq_penalty);
    }
    if let Some(k) = options.top_k {
        keep_top_k(&mut scored, k);
    }
    if let Some(p) = options.top_p {
        keep_top_p(&mut scored, p);
    }
    draw(rng, &scored, logits.len()).unwrap_or_else(|| most_likely(logits))
}

/// Draws a token with a probability proportional to its weight `exp(x)`. `None` if no logit is a number.
///
/// Each token of the vocabulary gets an exponentially distributed time, which is divided by its weight, and the first one
/// wins. So a token depends on the last digits of logits only if two times are equal up to those. (Adding up the weights
/// until they exceed a random number would make it depend on all logits.)
fn draw(rng: &mut SeededRng, scored: &[Scored], d_vocab: usize) -> Option<u32> {
    let largest = largest(scored);
    let random: Vec<f64> = (0..d_vocab).map(|_| rng.random()).collect();
    let arrivals = scored.iter().map(|&(token, x)| (token, -random[token as usize].ln() / weight(x, largest)));
    let finite = arrivals.filter(|(_, time)| time.is_finite());
    finite.min_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0))).map(|(token, _)| token)
}

/// The top token, as attention tokens are ranked. Shape: `[d_vocab]`.
pub(crate) fn most_likely(logits: &[f32]) -> u32 {
    let mut best = TopTokensBuilder::new(1, 1, logits.len());
    (0..).zip(logits).for_each(|(token, &logit)| best.push_token(0, token, logit));
    best.finish().tokens[[0, 0]]
}

fn largest(scored: &[Scored]) -> f64 {
    scored.iter().fold(f64::NEG_INFINITY, |largest, &(_, x)| largest.max(x))
}

/// `exp(x − largest)`; 0 for what is not a number.
fn weight(x: f64, largest: f64) -> f64 {
    let weight = if x == largest { 1.0 } else { (x - largest).exp() };
    if weight.is_nan() { 0.0 } else { weight }
}

/// Larger logits first.
fn descending(one: &Scored, other: &Scored) -> std::cmp::Ordering {
    other.1.total_cmp(&one.1).then(one.0.cmp(&other.0))
}

/// Keeps the `k` tokens with the largest logits, and those that tie with the last of them.
fn keep_top_k(scored: &mut Vec<Scored>, k: usize) {
    if k >= scored.len() {
        return;
    }
    let threshold = scored.select_nth_unstable_by(k - 1, descending).1.1;
    scored.retain(|&(_, x)| x >= threshold);
}

/// Keeps the fewest tokens with the largest logits whose probabilities add up to more than `p`.
fn keep_top_p(scored: &mut Vec<Scored>, p: f64) {
    let largest = largest(scored);
    let total: f64 = scored.iter().map(|&(_, x)| weight(x, largest)).sum();
    let mut n_sorted = SORTED_FIRST;
    loop {
        if n_sorted < scored.len() {
            scored.select_nth_unstable_by(n_sorted, descending);
        }
        n_sorted = n_sorted.min(scored.len());
        scored[..n_sorted].sort_unstable_by(descending);
        let mut sum = 0.0;
        let above = scored[..n_sorted].iter().position(|&(_, x)| {
            sum += weight(x, largest) / total;
            sum > p
        });
        match above {
            Some(last) => return scored.truncate(last + 1),
            None if n_sorted == scored.len() => return,
            None => n_sorted *= 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded_rng;

    fn tokens(mut scored: Vec<Scored>) -> Vec<u32> {
        scored.sort_unstable_by_key(|&(token, _)| token);
        scored.into_iter().map(|(token, _)| token).collect()
    }

    fn scored(probabilities: &[f64]) -> Vec<Scored> {
        probabilities.iter().enumerate().map(|(token, p)| (token as u32, p.ln())).collect()
    }

    #[test]
    fn top_k_keeps_ties_with_the_last() {
        for (k, kept) in
            [(1, vec![2]), (2, vec![0, 2, 3]), (3, vec![0, 2, 3]), (4, vec![0, 1, 2, 3]), (9, vec![0, 1, 2, 3])]
        {
            let mut scored = scored(&[0.25, 0.1, 0.4, 0.25]);
            keep_top_k(&mut scored, k);
            assert_eq!(tokens(scored), kept, "{k}");
        }
    }

    #[test]
    fn top_p_keeps_as_few_as_add_up_to_more() {
        for (p, kept) in [
            (1e-9, vec![2]),
            (0.39, vec![2]),
            (0.41, vec![0, 2]),
            (0.69, vec![0, 2]),
            (0.71, vec![0, 2, 3]),
            (1.0, vec![0, 1, 2, 3]),
        ] {
            let mut scored = scored(&[0.3, 0.1, 0.4, 0.2]);
            keep_top_p(&mut scored, p);
            assert_eq!(tokens(scored), kept, "{p}");
        }
        // More tokens than are sorted first, all alike.
        let mut many = scored(&vec![1.0 / 5000.0; 5000]);
        keep_top_p(&mut many, 0.5001);
        assert_eq!(tokens(many), (0..2501).collect::<Vec<_>>());
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.3_f32, 0.1, 0.4, 0.2].map(f32::ln);
        let counts = |options: GenerateOptions, tokens: &[u32]| {
            let rng = &mut seeded_rng(7);
            let mut counts = [0.0; 4];
            (0..40_000).for_each(|_| counts[next_token(&options, rng, &logits, tokens) as usize] += 1.0 / 40_000.0);
            counts
        };
        let expect = |counts: [f64; 4], expected: [f64; 4]| {
            // More than five standard deviations.
            assert!(
                counts.iter().zip(expected).all(|(n, p)| (n - p).abs() < 0.0125),
                "{counts:?}, expected {expected:?}"
            );
        };
        let options = GenerateOptions::default();
        expect(counts(options.clone(), &[]), [0.3, 0.1, 0.4, 0.2]);
        expect(counts(options.clone().top_k(2), &[]), [3.0 / 7.0, 0.0, 4.0 / 7.0, 0.0]);
        expect(counts(options.clone().top_p(0.8), &[]), [3.0 / 9.0, 0.0, 4.0 / 9.0, 2.0 / 9.0]);
        // `top_k` first: of the two kept tokens, the first has more than a half.
        expect(counts(options.clone().top_k(2).top_p(0.5), &[]), [0.0, 0.0, 1.0, 0.0]);
        // Half the temperature squares the probabilities.
        expect(counts(options.clone().temperature(0.5), &[]), [0.3, 0.1 / 3.0, 1.6 / 3.0, 0.4 / 3.0]);
        // Token 2 occurs twice: its probability falls by a factor of 4.
        let penalty = options.clone().freq_penalty(2_f64.ln());
        expect(counts(penalty, &[2, 2]), [0.3 / 0.7, 0.1 / 0.7, 0.1 / 0.7, 0.2 / 0.7]);
    }

    #[test]
    fn logits_that_are_not_finite_give_a_token() {
        let options = [GenerateOptions::default(), GenerateOptions::default().top_p(0.9)];
        for options in options.iter().chain([&GenerateOptions::default().top_k(2)]) {
            let draw = |logits: &[f32]| next_token(options, &mut seeded_rng(1), logits, &[]);
            assert_eq!(draw(&[f32::NAN, 1.0, f32::NEG_INFINITY]), 1, "{options:?}");
            assert_eq!(draw(&[1.0, f32::INFINITY, 2.0]), 1, "{options:?}");
            assert!(draw(&[f32::NAN; 3]) < 3 && draw(&[f32::NEG_INFINITY; 3]) < 3);
        }
    }
}
