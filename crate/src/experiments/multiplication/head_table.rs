//! The multiplication table of a head: its figure, its tables, and the maps of its tokens.

use std::collections::HashMap;

use ndarray::Array2;

use super::product_table::ProductTable;
use super::shuffled::TableTest;
use crate::attention_tokens::run_caption;
use crate::decode::Reading;
use crate::error::{Error, Result};
use crate::experiments::appending::Monoid;
use crate::model::Gpt2;
use crate::plot::{ChartAxis, Figure, MatrixChart, Table, by_frequency};
use crate::tokenizer::TokenLabels;

/// The largest number of tokens in a figure.
const MAX_SHOWN: usize = 120;

/// The result of [`multiplication_table`](super::multiplication_table()) and
/// [`closed_multiplication_table`](super::closed_multiplication_table()).
#[derive(Clone, Debug)]
pub struct MultiplicationTable {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// How a pair is read as a token.
    pub reading: Reading,
    /// The tokens and their products.
    pub products: ProductTable,
    /// The logit of each product minus that of the runner-up. Shape: `[n, n]`, in the cells of the products.
    pub margins: Array2<f32>,
    /// The number of tokens that were given; those after them were added to close the list.
    pub n_given: usize,
    model: String,
    labels: TokenLabels,
}

impl MultiplicationTable {
    pub(super) fn new(
        model: &Gpt2,
        [layer, head]: [usize; 2],
        reading: Reading,
        n_given: usize,
        products: ProductTable,
        margins: Array2<f32>,
    ) -> Self {
        let (model, labels) = (model.name().to_owned(), model.token_labels());
        Self { layer, head, reading, products, margins, n_given, model, labels }
    }

    /// A token as tables and figures show it.
    pub fn token_label(&self, token: u32) -> String {
        self.labels.label(token)
    }

    /// The properties of the table beside those of shuffled tables, as [`ProductTable::test`].
    ///
    /// # Errors
    /// [`Error::Count`] if `n_shuffles` is 0.
    pub fn test(&self, n_shuffles: usize, seed: u64) -> Result<TableTest> {
        let of = format!(" by {}", self.caption());
        Ok(TableTest { of, ..self.products.test(n_shuffles, seed)? })
    }

    /// The monoid of the maps `b → a ∘ b` of a closed table, each under the name of `a`. If `∘` is associative, composing
    /// the maps is multiplying the tokens, and the monoid has no more elements than the table has tokens and an identity. It
    /// is a group if every token maps the list onto itself.
    ///
    /// # Errors
    /// [`Error::Setting`] if the table is not closed; otherwise as for [`Monoid::generated_by`].
    pub fn monoid(&self, max_size: usize) -> Result<Monoid> {
        let maps = self.products.left_translations().ok_or_else(|| Error::Setting {
            function: "MultiplicationTable::monoid",
            option: "products",
            expected: "a closed table: closed_multiplication_table with a larger max_tokens".into(),
            found: format!("{} products outside of the list", self.products.outside().len()),
        })?;
        let names = self.products.tokens().iter().map(|&token| self.token_label(token));
        Monoid::generated_by(&names.zip(maps).collect::<Vec<_>>(), max_size)
    }

    /// The table: a row for each left token `a`, the query; a column for each right token `b`, the key. Each product has
    /// its own colour, and its name in the cells where it fits. At most 120 tokens are shown, the first of the list.
    pub fn plot(&self) -> Figure {
        let tokens = self.products.tokens();
        let n = tokens.len().min(MAX_SHOWN);
        let shown = if n < tokens.len() { format!(", {n} of {} tokens", tokens.len()) } else { String::new() };
        let products = self.products.products().slice(ndarray::s![..n, ..n]);
        let frequent = by_frequency(products.iter().copied());
        let color: HashMap<u32, usize> =
            frequent.iter().enumerate().map(|(rank, &(product, _))| (product, rank)).collect();
        let names = || tokens[..n].iter().map(|&token| self.token_label(token));
        let text = |((a, b), &product): ((usize, usize), &u32)| {
            let [a_name, b_name, product_name] = [tokens[a], tokens[b], product].map(|token| self.token_label(token));
            let place = if tokens.contains(&product) { "in the list" } else { "not in the list" };
            let margin = self.margins[[a, b]];
            format!("{a_name} ∘ {b_name} = {product_name}\n{place}\nmargin {margin:.3}")
        };
        MatrixChart {
            title: format!("Multiplication table{shown}: {}", self.caption()),
            rows: ChartAxis::names("a (query)", names()),
            columns: ChartAxis::names("b (key)", names()),
            values: products.map(|product| color[product] as f32),
            scale: ("product".into(), [0.0, (color.len() - 1).max(1) as f32]),
            labels: products.iter().map(|&product| self.token_label(product)).collect(),
            texts: products.indexed_iter().map(text).collect(),
        }
        .figure_of_names()
    }

    /// The most frequent products, with their shares of the table, and what is special about the table: idempotents,
    /// identities, groups.
    pub fn table(&self) -> Table {
        const SHOWN: usize = 8;
        let products = &self.products;
        let named = |tokens: &[u32]| {
            let names: Vec<String> = tokens.iter().take(SHOWN).map(|&token| self.token_label(token)).collect();
            let more = if tokens.len() > SHOWN { " …" } else { "" };
            format!("{}: {}{more}", tokens.len(), names.join(" ")).trim_end_matches([':', ' ']).to_owned()
        };
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let frequent = by_frequency(products.products().iter().copied());
        let frequent: Vec<u32> = frequent.into_iter().map(|(product, _)| product).collect();
        let groups = products.groups();
        let largest = groups.first().map_or(String::new(), |group| {
            let of: Vec<u32> = group.elements.iter().map(|&index| products.tokens()[index]).collect();
            named(&of)
        });
        let rows = [
            ("tokens", named(products.tokens())),
            ("distinct products, most frequent first", named(&frequent)),
            ("distinct products outside of the list", named(&products.outside())),
            ("closed", yes(products.is_closed())),
            ("idempotents", named(&products.idempotents())),
            ("left identities", named(&products.left_identities())),
            ("right identities", named(&products.right_identities())),
            ("a group as a whole", yes(products.is_group())),
            ("groups in it", groups.len().to_string()),
            ("the largest", largest),
        ];
        let rows = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
        Table::new(format!("Multiplication table: {}", self.caption()), &["property", "value"], rows)
    }

    fn caption(&self) -> String {
        let through = format!(", through {}", self.reading.in_words());
        format!("head {}.{}{}", self.layer, self.head, run_caption(&self.model, &through, &[]))
    }
}
