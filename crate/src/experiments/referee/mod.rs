//! The referee between readings: does the model's computation respect the words that a reading gives to pairs?
//!
//! | file | content |
//! |---|---|
//! | `merge_test` | [`merge_test()`], its options, and the runs |
//! | `partition` | the words of a row as a partition of its keys; random partitions; [`merge_attention()`] |
//! | `divergence` | KL divergence of edited runs at many positions |
//! | `statistics` | z-scores, p-values and intervals of heads and readings |
//! | `result` | [`MergeTest`]: tables and figures |

mod divergence;
mod merge_test;
mod partition;
mod result;
mod statistics;

pub use merge_test::{MergeOptions, merge_test};
pub use partition::{NothingToMerge, merge_attention};
pub use result::{HeadMerge, HeadResult, MergeTest, ReadingRank};
