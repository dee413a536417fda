//! The receipt of a prediction: a logit difference as a list of what each part of the model writes, which adds up.
//!
//! | file | content |
//! |---|---|
//! | `contributor` | the parts of the model that write, and how a run goes without one of them |
//! | `ledger` | [`receipt()`], its options, and the numbers |
//! | `lines` | [`Receipt`]: its lines, the sum, the cut |
//! | `strike` | the model run without a line: direct effect, total effect, self-repair |
//! | `show` | table, figure, CSV file |

mod contributor;
mod ledger;
mod lines;
mod show;
mod strike;

pub use contributor::Contributor;
pub use ledger::{ReceiptOptions, receipt};
pub use lines::{Receipt, ReceiptCell, ReceiptLine};
pub use strike::{Strike, Strikes};
