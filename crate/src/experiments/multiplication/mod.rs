//! A head as a multiplication: the attention token of every pair of tokens of a list, without prompts.
//!
//! | file | content |
//! |---|---|
//! | `mod` | [`multiplication_table()`], [`closed_multiplication_table()`] |
//! | `head_table` | [`MultiplicationTable`]: the figure, the tables, the maps of a closed table |
//! | `product_table` | [`ProductTable`]: the algebra of a table |
//! | `property` | [`TableProperty`]: the definition of each property |
//! | `shuffled` | [`TableTest`]: properties beside those of shuffled tables |

mod head_table;
mod product_table;
mod property;
mod shuffled;

use std::collections::BTreeSet;

use ndarray::{Array2, Axis};

pub use self::head_table::MultiplicationTable;
pub use self::product_table::ProductTable;
use self::product_table::check_tokens;
pub use self::property::TableProperty;
pub use self::shuffled::{PropertyTest, ShuffledProperty, TableTest};
use crate::attention_tokens::tokens_of_pairs;
use crate::decode::Reading;
use crate::error::{Result, check_count};
use crate::model::Gpt2;

/// The largest number of tokens of a table: four million products.
const MAX_TOKENS: usize = 2_000;

/// The multiplication table of a head: `a ∘ b` is the attention token of the pair with the query of token `a` and the key of
/// token `b`.
///
/// **Question.** The original claims that tokens act on each other like the elements of a group. As a statement that can be
/// false: on some list of tokens, `∘` is closed, associative, has an identity, and every token has an inverse.
/// [`ProductTable::is_group`] answers it for a table, [`ProductTable::groups`] for the parts of it, and each
/// [`TableProperty`] is the share of cases in which one of the laws holds.
///
/// **Definition.** Without a prompt, a token has no neighbours and no position. The input of the head is what the token's
/// embedding alone gives, with the mean of all positions:
///
/// ```text
/// x     = W_E[token] + mean_pos W_pos[pos]                        [d_model], for heads of layer 0
/// x     = x + MLP_0(LN2_0(x))                                      for heads of later layers
/// q, k, v = LN1_layer(x) W + b                                     [d_head] each
/// a ∘ b = the most likely token of the pair (q_a, k_b), by a Reading
/// ```
///
/// The attention of layer 0 is left out, and so is all that later layers add. Interventions of the model are not applied.
/// [`Projection::Written`](crate::Projection::Written) multiplies with an attention of 1, for attention depends on the other
/// keys of a prompt: `a ∘ b` is then what the value of `b` writes, whatever `a` is.
///
/// **Control.** [`ProductTable::test`] puts the same products into a random order: a head with few words has many
/// associative triples by chance. Shuffling does not change the closure; its control, and one more of the others, is the
/// table of [`Gpt2::with_random_weights`].
///
/// **Limits.** The table is about single tokens in an average position, not about a run: what a head reads in a prompt
/// also depends on the tokens before, on the position, and on all layers between. Products depend on the basis of the
/// weights except by [`Projection::Matched`](crate::Projection::Matched) and `Written`. Laws can hold for dull
/// reasons: [`TableProperty::LeftAlone`] and [`TableProperty::RightAlone`] show tables in which only one of the two tokens
/// counts.
///
/// ```
/// use attention_tokens::experiments::{TableProperty, multiplication_table};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let words = [" Monday", " Tuesday", " Wednesday"];
/// let tokens = words.iter().map(|word| model.to_single_token(word)).collect::<Result<Vec<u32>, Error>>()?;
/// let table = multiplication_table(&model, 0, 1, &tokens, Reading::MATCHED)?;
/// assert_eq!(table.products.products().dim(), (3, 3));
/// let test = table.test(99, 1)?;
/// assert!(test.result(TableProperty::Commutativity).value.is_some());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`](crate::Error::Count) for no tokens or more than 2000, [`Error::Setting`](crate::Error::Setting) for a
/// token that the list has twice, [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer, head or token that the model
/// does not have, [`Error::Svd`](crate::Error::Svd) for weights that are not finite, [`Error::Device`](crate::Error::Device)
/// if the device fails.
pub fn multiplication_table(
    model: &Gpt2,
    layer: usize,
    head: usize,
    tokens: &[u32],
    reading: impl Into<Reading>,
) -> Result<MultiplicationTable> {
    closure(model, [layer, head], tokens, reading.into(), None)
}

/// The multiplication table of the closure of a list: products outside of the list are added to it, with their own
/// products, until there are none. A closed table is where associativity is about all triples, and where a group can be
/// found.
///
/// The list stops growing at `max_tokens` tokens: [`ProductTable::is_closed`] is then false. New tokens are in the order
/// in which they first appear in the table, row by row.
///
/// ```
/// use attention_tokens::experiments::closed_multiplication_table;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let start = [model.to_single_token(" Monday")?];
/// let table = closed_multiplication_table(&model, 0, 1, &start, Reading::MATCHED, 100)?.products;
/// assert!(table.is_closed() || table.tokens().len() == 100);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As for [`multiplication_table`], and [`Error::Count`](crate::Error::Count) if `max_tokens` is more than 2000 or less than
/// the list has.
pub fn closed_multiplication_table(
    model: &Gpt2,
    layer: usize,
    head: usize,
    tokens: &[u32],
    reading: impl Into<Reading>,
    max_tokens: usize,
) -> Result<MultiplicationTable> {
    closure(model, [layer, head], tokens, reading.into(), Some(max_tokens))
}

/// The table of a list, or with `max_tokens` that of its closure.
fn closure(
    model: &Gpt2,
    [layer, head]: [usize; 2],
    tokens: &[u32],
    reading: Reading,
    max_tokens: Option<usize>,
) -> Result<MultiplicationTable> {
    check_tokens(tokens)?;
    check_count("multiplication_table", "tokens", tokens.len(), 1, Some(MAX_TOKENS))?;
    if let Some(max_tokens) = max_tokens {
        check_count("closed_multiplication_table", "max_tokens", max_tokens, tokens.len(), Some(MAX_TOKENS))?;
    }
    let n_given = tokens.len();
    let mut tokens = tokens.to_vec();
    let mut rows = model.qkv_of_tokens(layer, head, &tokens)?; // each [n, d_head]
    let mut products = Array2::<u32>::zeros((0, 0));
    let mut margins = Array2::<f32>::zeros((0, 0));
    loop {
        let (known, n) = (products.nrows(), tokens.len());
        let is_new = |&[a, b]: &[u32; 2]| a as usize >= known || b as usize >= known;
        let cells = (0..n as u32).flat_map(|a| (0..n as u32).map(move |b| [a, b]));
        let pairs: Vec<[u32; 2]> = cells.filter(is_new).collect();
        let top = tokens_of_pairs(model, [layer, head], reading, &rows, &pairs)?;
        (products, margins) = (grown(&products, n), grown(&margins, n));
        for (row, pair) in pairs.iter().enumerate() {
            let cell = pair.map(|index| index as usize);
            (products[cell], margins[cell]) = (top.tokens[[row, 0]], top.margin[row]);
        }
        let mut listed: BTreeSet<u32> = tokens.iter().copied().collect();
        let room = max_tokens.unwrap_or(0).saturating_sub(n);
        let new: Vec<u32> = products.iter().copied().filter(|&product| listed.insert(product)).take(room).collect();
        if new.is_empty() {
            break;
        }
        for (rows, new) in rows.iter_mut().zip(model.qkv_of_tokens(layer, head, &new)?) {
            rows.append(Axis(0), new.view()).expect("rows of d_head");
        }
        tokens.extend(new);
    }
    let products = ProductTable::new(tokens, products)?;
    Ok(MultiplicationTable::new(model, [layer, head], reading, n_given, products, margins))
}

/// The same array with more rows and columns of zeros. Shape: `[known, known]` → `[n, n]`.
fn grown<T: Copy + Default>(array: &Array2<T>, n: usize) -> Array2<T> {
    Array2::from_shape_fn((n, n), |cell| array.get(cell).copied().unwrap_or_default())
}
