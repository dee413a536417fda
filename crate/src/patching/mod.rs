//! What a number of a run depends on: activation patching, ablation of heads, knock-outs of attention, paths.
//!
//! A [`Metric`] reads one number off the logits. A sweep runs the prompts once for each place of the model, with an
//! [`Intervention`](crate::Intervention) there, and returns a [`Sweep`] of the metric: an array with named axes, and a
//! figure. Names and meanings of `get_act_patch_*` are those of `transformer_lens.patching`.
//!
//! A sweep computes only what can change: from the edited layer and the first edited position on, and the logits that the
//! metric reads. Runs that begin in the same layer are one batch, within [`SweepOptions::max_bytes`].
//!
//! ```
//! use attention_tokens::{patching, prelude::*};
//!
//! let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
//! let clean = "When Mary and John went to the store, John gave a drink to";
//! let corrupted = "When Mary and John went to the store, Mary gave a drink to";
//! let answers = [[model.to_single_token(" Mary")?, model.to_single_token(" John")?]];
//! let metric = Metric::logit_diff(&answers);
//! let (_, clean_cache) = model.run_with_cache(clean)?;
//! let sweep = patching::get_act_patch_resid_pre(&model, corrupted, &clean_cache, &metric)?;
//! assert_eq!(sweep.values.shape(), [4, 15]); // [layer, pos]
//! // The whole clean residual stream at the last position gives the clean answer.
//! assert!((sweep.values[[3, 14]] - metric.measure(&model, clean)?).abs() > 0.0);
//! sweep.plot()?
//! # ;
//! # Ok::<(), Error>(())
//! ```

mod act_patch;
mod effects;
mod engine;
mod every;
mod metric;
mod options;
mod paths;
mod sweep;

pub use act_patch::{
    PatchAxis, generic_activation_patch, get_act_patch_attn_head_k_all_pos, get_act_patch_attn_head_k_by_pos,
    get_act_patch_attn_head_out_all_pos, get_act_patch_attn_head_out_by_pos, get_act_patch_attn_head_pattern_all_pos,
    get_act_patch_attn_head_pattern_by_pos, get_act_patch_attn_head_pattern_dest_src_pos,
    get_act_patch_attn_head_q_all_pos, get_act_patch_attn_head_q_by_pos, get_act_patch_attn_head_v_all_pos,
    get_act_patch_attn_head_v_by_pos, get_act_patch_attn_out, get_act_patch_mlp_out, get_act_patch_resid_mid,
    get_act_patch_resid_pre,
};
pub use effects::{Ablation, cell_effects, head_effects};
pub use every::{
    get_act_patch_attn_head_all_pos_every, get_act_patch_attn_head_by_pos_every, get_act_patch_block_every,
};
pub use metric::Metric;
pub use options::SweepOptions;
pub use paths::{Receiver, freeze, path_patch};
pub use sweep::{Sweep, SweepAxis};
