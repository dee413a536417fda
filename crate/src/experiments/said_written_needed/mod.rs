//! What the pairs of a head say, what they write, and how much the prediction needs them.
//!
//! | file | content |
//! |---|---|
//! | `of_head` | [`said_written_needed()`]: one head on one prompt |
//! | `show` | its figure, with a menu of the three, and its table |
//! | `agreement` | [`word_agreement()`]: how often the three agree, over all heads |
//! | `rates` | the agreement of two lists of words, and the correlation of need and attention, each with its control |
//! | `tables` | the tables of the agreement |

mod agreement;
mod of_head;
mod rates;
mod show;
mod tables;

pub use agreement::{AgreementOptions, HeadAgreement, WordAgreement, word_agreement};
pub use of_head::{NeedOptions, SaidWrittenNeeded, said_written_needed};
pub use rates::WithChance;
