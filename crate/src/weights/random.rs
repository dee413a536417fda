//! Weights drawn at random, as GPT-2's are before training.

use ndarray::{Array, Array1, Array2, Dimension, ShapeBuilder};
use rand::Rng;

use super::{BlockWeights, LayerNormWeights, RawWeights, UnembedWeights};
use crate::config::Gpt2Config;
use crate::error::Result;
use crate::random::{SeededRng, seeded_stream};

/// The standard deviation of Hugging Face's `initializer_range`.
const STANDARD_DEVIATION: f64 = 0.02;

/// The weights of an untrained model: normal numbers, scaled as Hugging Face's `GPT2PreTrainedModel` initializes them.
/// What writes to the residual stream, `W_O` and `W_out`, is smaller by √(2 n_layers). Biases are 0, and layer norms only
/// normalize.
pub(crate) struct RandomWeights {
    pub(crate) config: Gpt2Config,
    pub(crate) seed: u64,
}

/// The parts of a model, each with random numbers of its own: a part can be drawn again, and in any order.
#[derive(Clone, Copy)]
enum Part {
    TokenEmbedding,
    PositionEmbedding,
    Unembed,
    Block(usize),
}

impl Part {
    fn stream(self) -> u64 {
        match self {
            Self::TokenEmbedding => 0,
            Self::PositionEmbedding => 1,
            Self::Unembed => 2,
            Self::Block(layer) => 3 + layer as u64,
        }
    }
}

impl RandomWeights {
    fn rng(&self, part: Part) -> SeededRng {
        seeded_stream(self.seed, part.stream())
    }

    /// `W_E`. Shape: → `[d_vocab, d_model]`.
    fn token_embedding(&self) -> Array2<f32> {
        let Gpt2Config { d_vocab, d_model, .. } = self.config;
        normal(&mut self.rng(Part::TokenEmbedding), (d_vocab, d_model), STANDARD_DEVIATION)
    }

    fn layer_norm(&self) -> LayerNormWeights {
        LayerNormWeights { w: Array1::ones(self.config.d_model), b: Array1::zeros(self.config.d_model) }
    }
}

impl RawWeights for RandomWeights {
    fn embeddings(&self) -> Result<(Array2<f32>, Array2<f32>)> {
        let Gpt2Config { n_ctx, d_model, .. } = self.config;
        let w_pos = normal(&mut self.rng(Part::PositionEmbedding), (n_ctx, d_model), STANDARD_DEVIATION);
        Ok((self.token_embedding(), w_pos))
    }

    fn block(&self, layer: usize) -> Result<BlockWeights> {
        let Gpt2Config { n_layers, n_heads, d_model, d_head, d_mlp, .. } = self.config;
        let rng = &mut self.rng(Part::Block(layer));
        let writing = STANDARD_DEVIATION / ((2 * n_layers) as f64).sqrt();
        let biases = || Array2::zeros((n_heads, d_head));
        Ok(BlockWeights {
            ln1: Some(self.layer_norm()),
            w_q: normal(rng, (n_heads, d_model, d_head), STANDARD_DEVIATION),
            b_q: biases(),
            w_k: normal(rng, (n_heads, d_model, d_head), STANDARD_DEVIATION),
            b_k: biases(),
            w_v: normal(rng, (n_heads, d_model, d_head), STANDARD_DEVIATION),
            b_v: biases(),
            w_o: normal(rng, (n_heads, d_head, d_model), writing),
            b_o: Array1::zeros(d_model),
            ln2: Some(self.layer_norm()),
            w_in: normal(rng, (d_model, d_mlp), STANDARD_DEVIATION),
            b_in: Array1::zeros(d_mlp),
            w_out: normal(rng, (d_mlp, d_model), writing),
            b_out: Array1::zeros(d_model),
        })
    }

    fn unembed(&self) -> Result<UnembedWeights> {
        let Gpt2Config { d_vocab, d_model, tie_word_embeddings, .. } = self.config;
        let w_u_t = if tie_word_embeddings {
            self.token_embedding()
        } else {
            normal(&mut self.rng(Part::Unembed), (d_vocab, d_model), STANDARD_DEVIATION)
        };
        let (ln_final, b_u) = (Some(self.layer_norm()), Array1::zeros(d_vocab));
        Ok(UnembedWeights { ln_final, w_u: w_u_t.reversed_axes(), b_u })
    }
}

/// Independent normal numbers of mean 0, by the method of Box and Muller.
pub(crate) fn normal<D: Dimension>(
    rng: &mut SeededRng,
    shape: impl ShapeBuilder<Dim = D>,
    standard_deviation: f64,
) -> Array<f32, D> {
    let mut second = None;
    Array::from_shape_simple_fn(shape, || {
        let number = second.take().unwrap_or_else(|| {
            // 1 − x is in (0, 1], so that its logarithm is finite.
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
            second = Some(radius * sin);
            radius * cos
        });
        (standard_deviation * number) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded_rng;

    #[test]
    fn numbers_are_normal() {
        let n = 100_000;
        let numbers = normal(&mut seeded_rng(1), n, 2.0).mapv(f64::from);
        let moment = |power| numbers.mapv(|x| (x / 2.0).powi(power)).mean().unwrap();
        // Standard errors of the four moments: 0.003, 0.004, 0.012, 0.031.
        let expected = [0.0, 1.0, 0.0, 3.0];
        for (power, tolerance) in [(1, 0.015), (2, 0.02), (3, 0.06), (4, 0.15)] {
            assert!(
                (moment(power) - expected[power as usize - 1]).abs() < tolerance,
                "moment {power}: {}",
                moment(power)
            );
        }
        let beyond = numbers.iter().filter(|x| x.abs() > 2.0 * 1.959_964).count();
        assert!((beyond as f64 / n as f64 - 0.05).abs() < 0.005, "{beyond}");
        assert_eq!(normal(&mut seeded_rng(1), 3, 2.0), normal(&mut seeded_rng(1), n, 2.0).slice(ndarray::s![..3]));
    }
}
