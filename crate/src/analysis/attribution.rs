//! Direct logit attribution: the part of a logit that components, heads and pairs of positions write themselves.
//!
//! The final layer norm with its scale taken from the run, and the unembedding, are linear. So a logit is a sum over the
//! components of the residual stream, plus a constant: the bias of the unembedding.

use ndarray::{Array1, Array2, Array3, Axis, s};

use super::heads::HeadScores;
use super::residual_stream::ResidualStack;
use crate::error::{Result, check_count, check_position};
use crate::model::{Activation, ActivationCache, Gpt2};

impl Gpt2 {
    /// The direction in the residual stream, after the final layer norm, that raises the logit of each token: its column
    /// of `W_U`. TransformerLens' `tokens_to_residual_directions`. Where the weights of the final layer norm are not
    /// folded into `W_U`, the directions include them. Shape: `tokens [n]` → `[n, d_model]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that the vocabulary does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn tokens_to_residual_directions(&self, tokens: &[u32]) -> Result<Array2<f32>> {
        self.check_tokens(tokens)?;
        self.on_device().residual_directions(tokens)
    }

    /// The direction of a token, minus that of another if there is one, centered as the layer norm centers.
    /// Shape: → `[d_model]`.
    pub(super) fn centered_direction(&self, token: u32, incorrect_token: Option<u32>) -> Result<Array1<f32>> {
        let tokens: Vec<u32> = std::iter::once(token).chain(incorrect_token).collect();
        let directions = self.tokens_to_residual_directions(&tokens)?;
        let mut direction = directions.row(0).to_owned();
        if incorrect_token.is_some() {
            direction -= &directions.row(1);
        }
        let mean = direction.mean().unwrap_or_default();
        Ok(direction - mean)
    }
}

/// Direct logit attribution in a run of one prompt. With `incorrect_token`, the logit is the difference to that token's.
/// The bias `b_U` is not included.
impl ActivationCache {
    /// The logit that each component of a stack writes, through the final layer norm with the run's own scale:
    /// TransformerLens' `logit_attrs`. Shape: `stack [component, pos, d_model]` → `[component, pos]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that the vocabulary does not have,
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model or a stack that is not of this run, and those
    /// of [`get`](Self::get).
    pub fn logit_attrs(
        &self,
        model: &Gpt2,
        stack: &ResidualStack,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<Array2<f32>> {
        self.check_stack(model, stack, "logit_attrs")?;
        let direction = model.centered_direction(token, incorrect_token)?;
        let scale = self.ln_final_scale(model)?.select(Axis(0), &stack.positions); // [pos]
        let (components, pos, d_model) = stack.values.dim();
        let rows = stack.values.to_shape((components * pos, d_model)).expect("the stack has this many rows");
        let logits = rows.dot(&direction).into_shape_with_order((components, pos)).expect("a number for each row");
        Ok(logits / scale)
    }

    /// The logit that each head writes at each position, without building [`stack_head_results`](Self::stack_head_results).
    /// Shape: → `[layer, head, pos]`.
    ///
    /// # Errors
    /// As for [`logit_attrs`](Self::logit_attrs).
    pub fn head_logit_attrs(&self, model: &Gpt2, token: u32, incorrect_token: Option<u32>) -> Result<Array3<f32>> {
        self.check_model(model, "head_logit_attrs")?;
        let direction = model.centered_direction(token, incorrect_token)?;
        let scale = self.ln_final_scale(model)?; // [pos]
        let (n_layers, n_heads) = (self.n_layers(), model.config().n_heads);
        let mut attrs = Array3::zeros((n_layers, n_heads, scale.len()));
        for (layer, mut attrs) in attrs.outer_iter_mut().enumerate() {
            if self.is_edited(Activation::Result) {
                let results = self.cube(Activation::Result, layer)?; // [pos, n_heads, d_model]
                for (head, mut attrs) in attrs.outer_iter_mut().enumerate() {
                    attrs.assign(&(results.slice(s![.., head, ..]).dot(&direction) / &scale));
                }
                continue;
            }
            let (z, w_o) = (self.cube(Activation::Z, layer)?, model.on_device().w_o(layer)?);
            for (head, mut attrs) in attrs.outer_iter_mut().enumerate() {
                let through_w_o = w_o.index_axis(Axis(0), head).dot(&direction); // [d_head]
                attrs.assign(&(z.slice(s![.., head, ..]).dot(&through_w_o) / &scale));
            }
        }
        Ok(attrs)
    }

    /// The mean over the prompts of the logit that each head writes at one position, that of a right answer minus that of a
    /// wrong one: [`head_logit_attrs`](Self::head_logit_attrs) of one prompt or of several, of any lengths. `answers` has a
    /// pair for each prompt, or one for all; a negative position counts from each prompt's end.
    /// Shape: `answers [prompt] [right, wrong]` → `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// As for [`head_logit_attrs`](Self::head_logit_attrs), [`Error::Count`](crate::Error::Count) for another number of
    /// answers than prompts, and [`Error::Position`](crate::Error::Position) for a position that a prompt does not have.
    pub fn mean_head_logit_attrs(&self, model: &Gpt2, answers: &[[u32; 2]], position: isize) -> Result<HeadScores> {
        let n = self.n_prompts();
        if answers.len() != 1 {
            let what = "pairs of answers, one for each prompt";
            check_count("mean_head_logit_attrs", what, answers.len(), n, Some(n))?;
        }
        let mut sum = Array2::<f32>::zeros((self.n_layers(), model.config().n_heads));
        for (prompt, tokens) in self.tokens().iter().enumerate() {
            let [right, wrong] = answers[if answers.len() == 1 { 0 } else { prompt }];
            let attrs = self.prompt(prompt)?.head_logit_attrs(model, right, Some(wrong))?; // [layer, head, pos]
            sum += &attrs.index_axis(Axis(2), check_position(position, prompt, tokens.len())?);
        }
        let name = format!("mean logit difference that each head writes at position {position}");
        Ok(HeadScores { name, values: sum / n as f32, chance: None })
    }

    /// The logit that each pair of a head writes, `A_ij v_j W_O · u` over the scale at the query *i*; `u` is the token's
    /// direction. The sum over the keys is that of the head. Shape: → `[query_pos, key_pos]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer, a head or a token that the model does not have, and
    /// those of [`get`](Self::get).
    pub fn cell_logit_attrs(
        &self,
        model: &Gpt2,
        layer: usize,
        head: usize,
        token: u32,
        incorrect_token: Option<u32>,
    ) -> Result<Array2<f32>> {
        self.check_model(model, "cell_logit_attrs")?;
        let w_o = model.w_o(layer, head)?; // [d_head, d_model]
        let direction = model.centered_direction(token, incorrect_token)?;
        let scale = self.ln_final_scale(model)?;
        let v = self.cube(Activation::V, layer)?;
        let by_key = v.slice(s![.., head, ..]).dot(&w_o.dot(&direction)); // [key_pos]
        let pattern = self.cube(Activation::Pattern, layer)?;
        let attrs = &pattern.index_axis(Axis(0), head) * &by_key.insert_axis(Axis(0));
        Ok(attrs / scale.insert_axis(Axis(1)))
    }
}
