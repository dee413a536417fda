//! Published numbers that this program does not compute: those that have no row yet, and those without their prompts.

/// What was published, and where.
type Published = (&'static str, &'static str);

/// Each becomes a function in the file of its group, with the module `patching`.
const NOT_YET: &[Published] = &[
    (
        "without 9.9 on the eight prompts: mean ratio of layer norm scales 1.0417; 10.7 +1, 10.10 +0.8",
        "TransformerLens Exploratory_Analysis_Demo, cells 105, 114–118",
    ),
    (
        "patching by head: 5.5 6.9 3.0 early; 8.6 8.10 7.9 by values; 9.9 10.7 11.10 by patterns",
        "TransformerLens Exploratory_Analysis_Demo, cells 74–97",
    ),
    (
        "direct path 8.6 → 9.9 by queries, normalized: +0.083, the strongest",
        "TransformerLens direct_path_patching_ioi, cell 13",
    ),
    (
        "z of 9.9 9.6 10.0 patched into the author's corrupted prompts: −1.686828017",
        "layterz/experiments notebooks/ioi.ipynb, cell 33",
    ),
    ("all name movers knocked out: −5 %", "Wang et al. 2022, section 3.4"),
    ("faithfulness of the circuit: |F(M) − F(C)| = 0.46, 87 %", "Wang et al. 2022, section 4"),
    ("copy suppression of 10.7: 76.9 % of its effect, 39 % of self-repair", "McDougall et al. 2023, arXiv:2310.04625"),
    ("10.7 ablated, \"All's fair in love and\" → \" love\"", "McDougall et al. 2023, arXiv:2310.04625"),
    ("greater-than: MLPs 8–11", "Hanna et al. 2023, arXiv:2305.00586"),
];

/// What was published, and why it cannot be repeated.
const WITHOUT_PROMPTS: &[Published] = &[(
    "both names duplicated: S is preferred in 23 % (Wang et al. 2022, section 4.4)",
    "the paper describes the kind of prompt, without a list",
)];

pub(crate) fn print() {
    println!("\nPublished, and not yet in this program");
    NOT_YET.iter().for_each(|(what, source)| println!("{what:<104}  {source}"));
    println!("\nLeft out");
    WITHOUT_PROMPTS.iter().for_each(|(what, reason)| println!("{what}: {reason}"));
}
