//! Comparisons of logits: ranks of tokens, differences of two answers, divergence of two runs.

use ndarray::{Array1, Array2, Zip};

use super::loss::log_sum_exp;
use super::unembedding::rank;
use crate::error::{Error, Result, check_count, check_index};

/// The rank of tokens at each position: the number of tokens with a larger logit, 0 for the most likely one.
/// Shape: `logits [pos, d_vocab]`, `tokens [token]` → `[pos, token]`.
///
/// # Errors
/// [`Error::OutOfRange`] for a token id that the logits do not have.
pub fn token_ranks(logits: &Array2<f32>, tokens: &[u32]) -> Result<Array2<usize>> {
    check_tokens(logits, tokens)?;
    Ok(Array2::from_shape_fn((logits.nrows(), tokens.len()), |(pos, token)| rank(logits.row(pos), tokens[token])))
}

/// The logit difference of each prompt: the logit of the right answer minus that of the wrong one, at the prompt's last
/// position. Shape: `logits [prompt] [pos, d_vocab]`, `answers [prompt] [right, wrong]` → `[prompt]`.
///
/// ```
/// use attention_tokens::{logit_diff, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let logits = model.forward("When Mary and John went to the store, John gave a drink to")?;
/// let answers = [[model.to_single_token(" Mary")?, model.to_single_token(" John")?]];
/// assert!(logit_diff(&logits, &answers)?[0] > 0.0);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] for another number of answers than prompts or for logits without a position,
/// [`Error::OutOfRange`] for a token id that the logits do not have.
pub fn logit_diff(logits: &[Array2<f32>], answers: &[[u32; 2]]) -> Result<Array1<f32>> {
    const FUNCTION: &str = "logit_diff";
    check_count(FUNCTION, "pairs of answers, one for each prompt", answers.len(), logits.len(), Some(logits.len()))?;
    let difference = |(logits, answers): (&Array2<f32>, &[u32; 2])| {
        check_tokens(logits, answers)?;
        check_count(FUNCTION, "positions of the logits", logits.nrows(), 1, None)?;
        let [right, wrong] = answers.map(|token| logits[[logits.nrows() - 1, token as usize]]);
        Ok(right - wrong)
    };
    logits.iter().zip(answers).map(difference).collect()
}

/// The Kullback–Leibler divergence `KL(p‖q) = Σ p (ln p − ln q)` at each position, in nats, computed in `f64`: how much
/// the predictions `q` lose where the predictions `p` are right. It is not symmetric. For a run with something changed,
/// `p` is the unchanged run. Shape: each `[pos, d_vocab]` → `[pos]`.
///
/// # Errors
/// [`Error::Shape`] for logits of two shapes.
pub fn kl_divergence(p_logits: &Array2<f32>, q_logits: &Array2<f32>) -> Result<Array1<f64>> {
    if p_logits.dim() != q_logits.dim() {
        return Err(Error::Shape {
            what: "kl_divergence: the logits of q".into(),
            axes: "[pos, d_vocab]",
            expected: p_logits.shape().to_vec(),
            found: q_logits.shape().to_vec(),
            hint: "compare two runs of prompts with as many tokens, of models with one vocabulary",
        });
    }
    let rows = Zip::from(p_logits.rows()).and(q_logits.rows());
    Ok(rows.map_collect(|p, q| {
        let (p_log_sum, q_log_sum) = (log_sum_exp(p), log_sum_exp(q));
        let term = |(&p, &q): (&f32, &f32)| {
            let (p, q) = (f64::from(p) - p_log_sum, f64::from(q) - q_log_sum);
            if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }
        };
        let divergence = p.iter().zip(q).map(term).sum::<f64>();
        if divergence < 0.0 { 0.0 } else { divergence } // rounding, where the two are equal
    }))
}

/// [`Error::OutOfRange`] for a token id that the logits do not have. Shape: `logits [pos, d_vocab]`.
fn check_tokens(logits: &Array2<f32>, tokens: &[u32]) -> Result<()> {
    tokens.iter().try_for_each(|&token| {
        check_index("token id", token as usize, "each row of the logits", logits.ncols()).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn ranks_count_the_larger_logits() {
        let logits = arr2(&[[0.0, 3.0, 1.0, 3.0], [5.0, -1.0, 2.0, 7.0]]);
        assert_eq!(token_ranks(&logits, &[1, 2, 0]).unwrap(), arr2(&[[0, 2, 3], [3, 2, 1]]));
        assert!(matches!(token_ranks(&logits, &[4]), Err(Error::OutOfRange { index: 4, len: 4, .. })));
    }

    #[test]
    fn divergence_is_directed() {
        let ln = |probabilities: [f32; 3]| probabilities.map(f32::ln);
        let p = arr2(&[ln([0.5, 0.5, 0.0]), ln([0.2, 0.3, 0.5]).map(|logit| logit + 7.0)]);
        let q = arr2(&[ln([0.25, 0.25, 0.5]), ln([0.2, 0.3, 0.5])]);
        let kl = kl_divergence(&p, &q).unwrap();
        assert!((kl[0] - 2.0_f64.ln()).abs() < 1e-7 && kl[1] >= 0.0 && kl[1] < 1e-7, "{kl}");
        assert_eq!(kl_divergence(&q, &p).unwrap()[0], f64::INFINITY); // q deems possible what p excludes
        assert!(matches!(kl_divergence(&p, &arr2(&[[0.0; 3]])), Err(Error::Shape { .. })));
    }

    #[test]
    fn answers_of_another_count_than_prompts_are_an_error() {
        let logits = [arr2(&[[9.0, 9.0], [1.0, 4.0]]), arr2(&[[3.0, 1.0]])];
        assert_eq!(logit_diff(&logits, &[[0, 1], [0, 1]]).unwrap().to_vec(), [-3.0, 2.0]);
        let error = logit_diff(&logits, &[[0, 1]]).unwrap_err().to_string();
        assert_eq!(error, "logit_diff: pairs of answers, one for each prompt: expected 2, found 1");
        assert!(matches!(logit_diff(&logits, &[[0, 1], [0, 2]]), Err(Error::OutOfRange { index: 2, .. })));
        assert!(matches!(logit_diff(&[Array2::zeros((0, 2))], &[[0, 1]]), Err(Error::Count { .. })));
    }
}
