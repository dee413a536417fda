//! The numbers that a planned edit takes from an array or from a cache.

use ndarray::{Array3, ArrayD, ArrayView3, Axis, Ix3, IxDyn, Zip};
use rand::Rng;

use super::intervention::Intervention;
use super::plan::Target;
use super::selection::{Indices, has_heads};
use crate::error::{Error, Result, check_count};
use crate::model::ActivationCache;
use crate::random::seeded_rng;

impl Intervention {
    /// Values with the axes of `indices`, of which missing ones are broadcast.
    pub(super) fn fitted(&self, values: &ArrayD<f32>, indices: &Indices) -> Result<ArrayD<f32>> {
        let shape = indices.each_ref().map(Vec::len);
        let (axes, expected) = match (has_heads(self.point.activation), self.point.activation.is_of_cells()) {
            (_, true) => ("[n_heads, query_pos, key_pos]", shape.to_vec()),
            (true, false) => ("[pos, n_heads, d_head]", shape.to_vec()),
            (false, false) => ("[pos, d_model]", vec![shape[0], shape[2]]),
        };
        let found = values.shape().to_vec();
        if values.broadcast(IxDyn(&expected)).is_none() {
            let hint = "the selected part, or a shape that is broadcast to it: axes of length 1, leading axes missing";
            return Err(Error::Shape { what: "values".into(), axes, expected, found, hint });
        }
        let values = values.clone();
        Ok(if expected.len() == 2 && values.ndim() == 2 { values.insert_axis(Axis(1)) } else { values })
    }

    /// The index in a cache of the prompt that stands for one of the run, after a check of the number of prompts.
    pub(super) fn same_prompt(&self, cache: &ActivationCache, target: &Target, prompt: usize) -> Result<usize> {
        let n = target.tokens.len();
        check_count("Intervention", "prompts of the cache, as many as the run has", cache.n_prompts(), n, Some(n))?;
        Ok(prompt)
    }

    /// The values of a prompt of a cache. Shape: → that of `indices`.
    pub(super) fn values_of(
        &self,
        cache: &ActivationCache,
        from: usize,
        pos: usize,
        indices: &Indices,
    ) -> Result<Array3<f32>> {
        let found = cache.tokens()[from].len();
        if found != pos {
            return Err(Error::Shape {
                what: format!("prompt {from} of the cache"),
                axes: "[pos]",
                expected: vec![pos],
                found: vec![found],
                hint: "a prompt is replaced by one with as many tokens",
            });
        }
        let [a, b, c] = indices;
        let values = self.cube(cache, from)?;
        let values = Array3::from_shape_fn((a.len(), b.len(), c.len()), |(i, j, k)| values[[a[i], b[j], c[k]]]);
        self.check_finite(values.view().into_dyn(), self.of_scores())?;
        Ok(values)
    }

    /// A prompt's activation in a cache, with the axes of [`Indices`].
    fn cube<'a>(&self, cache: &'a ActivationCache, prompt: usize) -> Result<ArrayView3<'a, f32>> {
        let view = cache.view_of_prompt(prompt, self.point.activation, self.point.layer)?;
        let view = if view.ndim() == 2 { view.insert_axis(Axis(1)) } else { view };
        let (found, expected) = (view.shape().to_vec(), vec![0; 3]);
        let what = format!("{} of the cache", self.point);
        view.into_dimensionality::<Ix3>().map_err(|_| Error::Shape {
            what,
            axes: "three axes",
            expected,
            found,
            hint: "the cache is broken",
        })
    }

    /// The mean over prompts of a cache, position by position. Shape: → that of `indices`.
    pub(super) fn mean_of(
        &self,
        cache: &ActivationCache,
        groups: Option<&[usize]>,
        target: &Target,
        prompt: usize,
        indices: &Indices,
    ) -> Result<Array3<f32>> {
        if let Some(groups) = groups {
            self.same_prompt(cache, target, prompt)?;
            let n = cache.n_prompts();
            check_count("Intervention", "groups, one for each prompt of the cache", groups.len(), n, Some(n))?;
        }
        let in_group = |from: &usize| groups.is_none_or(|groups| groups[*from] == groups[prompt]);
        let [a, b, c] = indices;
        let shape = (a.len(), b.len(), c.len());
        let (mut sum, mut count) = (Array3::<f64>::zeros(shape), Array3::<u32>::zeros(shape));
        for from in (0..cache.n_prompts()).filter(in_group) {
            let values = self.cube(cache, from)?;
            for (((i, j, k), sum), count) in sum.indexed_iter_mut().zip(&mut count) {
                if let Some(&x) = values.get([a[i], b[j], c[k]]) {
                    *sum += f64::from(x);
                    *count += 1;
                }
            }
        }
        if count.iter().any(|&count| count == 0) {
            let longest = cache.tokens().iter().map(Vec::len).max().unwrap_or(0);
            return Err(Error::Shape {
                what: format!("the prompts of the cache, for the mean at prompt {prompt}"),
                axes: "[pos]",
                expected: vec![target.past[prompt] + target.tokens[prompt].len()],
                found: vec![longest],
                hint: "a mean needs a prompt of the cache, of the same group, that is at least as long",
            });
        }
        let mean = Zip::from(&sum).and(&count).map_collect(|&sum, &count| (sum / f64::from(count)) as f32);
        self.check_finite(mean.view().into_dyn(), self.of_scores())?;
        Ok(mean)
    }
}

/// The prompt of a cache that replaces each prompt of a run, drawn from those of equal length with other tokens.
pub(super) fn draws(cache: &ActivationCache, target: &Target, seed: u64) -> Vec<Option<usize>> {
    let mut rng = seeded_rng(seed);
    let draw = |(tokens, &past): (&Vec<u32>, &usize)| {
        let others = |from: &usize| {
            let candidate = &cache.tokens()[*from];
            candidate.len() == past + tokens.len() && candidate != tokens
        };
        let others: Vec<usize> = (0..cache.n_prompts()).filter(others).collect();
        (!others.is_empty()).then(|| others[rng.random_range(0..others.len())])
    };
    target.tokens.iter().zip(&target.past).map(draw).collect()
}
