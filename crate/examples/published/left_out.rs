//! Published numbers that this program does not compute, and why.

/// What was published and where, and why it cannot be repeated.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "both names duplicated: S is preferred in 23 % (Wang et al. 2022, section 4.4)",
        "the paper describes the kind of prompt, without a list",
    ),
    (
        "copy suppression is 76.9 % of the effect of 10.7 (McDougall et al. 2023, arXiv:2310.04625)",
        "the passages of OpenWebText, over which its ablation takes means and measures, are not given",
    ),
    (
        "copy suppression is 39 % of the self-repair of indirect objects (McDougall et al. 2023)",
        "the prompts are not given, and the share is that of their model of the head, not a number of a run",
    ),
];

pub(crate) fn print() {
    println!("\nLeft out");
    LEFT_OUT.iter().for_each(|(what, reason)| println!("{what}: {reason}"));
}
