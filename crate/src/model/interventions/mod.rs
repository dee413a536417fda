//! Changes of a run, as values: what is changed, where, and how.
//!
//! | file | content |
//! |---|---|
//! | `hook_point` | an activation of a layer, and its name |
//! | `intervention` | [`Intervention`]: a hook point, a selection, an edit |
//! | `description` | its text, for messages, captions and files |
//! | `selection` | the heads, positions, keys and prompts that it changes |
//! | `edit` | how the numbers change, and where they come from |
//! | `plan` | the interventions of a run, checked against the model and the prompts before it begins |
//! | `values` | the numbers that an edit takes from an array or a cache |
//! | `apply` | one planned edit of one array |

mod apply;
mod by_row;
mod description;
mod edit;
mod hook_point;
mod intervention;
mod plan;
mod selection;
mod values;

pub use edit::{EditValues, HookContext};
pub use hook_point::HookPoint;
pub(crate) use intervention::FREEZE_LAYER_NORM;
pub use intervention::Intervention;
pub(super) use plan::{PlannedEdit, PlannedEdits, Target};
