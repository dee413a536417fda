//! The table of an operation on a list of tokens, and its algebra.

use std::collections::{BTreeSet, HashMap};

use ndarray::Array2;

use super::property::{TableProperty, Value};
use crate::error::{Error, Result, check_count};
use crate::experiments::appending::Group;

/// The products `a ∘ b` of the tokens of a list, of any operation `∘`. A product may be outside of the list.
///
/// ```
/// use attention_tokens::experiments::{ProductTable, TableProperty};
/// use attention_tokens::ndarray::arr2;
///
/// // Addition modulo 3, with the tokens 10, 11 and 12 for 0, 1 and 2.
/// let table = ProductTable::new(vec![10, 11, 12], arr2(&[[10, 11, 12], [11, 12, 10], [12, 10, 11]]))?;
/// assert!(table.is_group());
/// assert_eq!(table.value(TableProperty::Associativity), Some(1.0));
/// assert_eq!(table.left_identities(), [10]);
/// # Ok::<(), attention_tokens::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductTable {
    tokens: Vec<u32>,
    products: Array2<u32>,
    codes: Codes,
}

impl ProductTable {
    /// The table of a list of tokens. Shape: `tokens [n]`, `products [n, n]`, `a ∘ b` in row `a` and column `b`.
    ///
    /// # Errors
    /// [`Error::Count`] for an empty list, [`Error::Setting`] for a list with a token twice, [`Error::Shape`] for another
    /// number of products.
    pub fn new(tokens: Vec<u32>, products: Array2<u32>) -> Result<Self> {
        check_tokens(&tokens)?;
        let n = tokens.len();
        if products.dim() != (n, n) {
            return Err(Error::Shape {
                what: "ProductTable".into(),
                axes: "products [n, n]",
                expected: vec![n, n],
                found: products.shape().to_vec(),
                hint: "a product for each pair of tokens",
            });
        }
        let codes = Codes::new(&tokens, &products);
        Ok(Self { tokens, products, codes })
    }

    /// The tokens of the list. Shape: → `[n]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The products, `a ∘ b` in row `a` and column `b`. Shape: → `[n, n]`.
    pub fn products(&self) -> &Array2<u32> {
        &self.products
    }

    /// A property as a number from 0 to 1; `None` where nothing can be counted. [`TableProperty`] defines each.
    pub fn value(&self, property: TableProperty) -> Option<f64> {
        self.codes.value(property).share()
    }

    /// The number of products, pairs or triples that a property counts.
    pub fn n_counted(&self, property: TableProperty) -> u64 {
        self.codes.value(property).of
    }

    /// Whether all products are in the list.
    pub fn is_closed(&self) -> bool {
        self.codes.outside().next().is_none()
    }

    /// The distinct products that are not in the list, in the order of their first appearance, row by row.
    pub fn outside(&self) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        let products = self.products.iter().zip(&self.codes.codes);
        products.filter(|&(_, &code)| code >= self.codes.n() && seen.insert(code)).map(|(&token, _)| token).collect()
    }

    /// The tokens `e` with `e ∘ e = e`.
    pub fn idempotents(&self) -> Vec<u32> {
        self.tokens_where(|e| self.codes.at(e, e) == e)
    }

    /// The tokens `e` with `e ∘ a = a` for each token `a` of the list.
    pub fn left_identities(&self) -> Vec<u32> {
        self.tokens_where(|e| (0..self.codes.n()).all(|a| self.codes.at(e, a) == a))
    }

    /// The tokens `e` with `a ∘ e = a` for each token `a` of the list.
    pub fn right_identities(&self) -> Vec<u32> {
        self.tokens_where(|e| (0..self.codes.n()).all(|a| self.codes.at(a, e) == a))
    }

    fn tokens_where(&self, is: impl Fn(u32) -> bool) -> Vec<u32> {
        self.tokens.iter().zip(0..).filter(|&(_, index)| is(index)).map(|(&token, _)| token).collect()
    }

    /// Whether the list is a group: closed, associative, with an identity, and an inverse for each token.
    pub fn is_group(&self) -> bool {
        self.codes.is_group(&(0..self.codes.n()).collect::<Vec<_>>())
    }

    /// The groups in the table that one or two tokens generate, as indices of tokens, largest first, without those that are
    /// part of another one. An idempotent alone is a group of one token.
    pub fn groups(&self) -> Vec<Group> {
        let mut found = BTreeSet::new();
        let n = self.codes.n();
        // Each element of a group generates a group, so a pair needs two such elements.
        let mut in_a_group = Vec::new();
        for a in 0..n {
            if let Some(group) = self.codes.group_generated_by(&[a]) {
                found.insert(group);
                in_a_group.push(a);
            }
        }
        for (index, &a) in in_a_group.iter().enumerate() {
            found.extend(in_a_group[..index].iter().filter_map(|&b| self.codes.group_generated_by(&[a, b])));
        }
        let mut found: Vec<Vec<u32>> = found.into_iter().collect();
        found.sort_by_key(|group| (std::cmp::Reverse(group.len()), group[0]));
        let mut largest: Vec<Vec<u32>> = Vec::new();
        for group in found {
            let is_part_of = |other: &Vec<u32>| group.iter().all(|element| other.binary_search(element).is_ok());
            if !largest.iter().any(is_part_of) {
                largest.push(group);
            }
        }
        let group = |elements: Vec<u32>| {
            let identity = elements.iter().find(|&&e| self.codes.at(e, e) == e).expect("a group has an identity");
            let abelian =
                elements.iter().all(|&a| elements.iter().all(|&b| self.codes.at(a, b) == self.codes.at(b, a)));
            let identity = *identity as usize;
            Group { identity, abelian, elements: elements.into_iter().map(|element| element as usize).collect() }
        };
        largest.into_iter().map(group).collect()
    }

    /// The maps `b → a ∘ b` of a closed table, as indices of tokens; `None` if it is not closed. Shape: → `[a] [b]`.
    pub(super) fn left_translations(&self) -> Option<Vec<Vec<usize>>> {
        let rows = self.codes.codes.outer_iter();
        self.is_closed().then(|| rows.map(|row| row.iter().map(|&code| code as usize).collect()).collect())
    }

    pub(super) fn codes(&self) -> &Codes {
        &self.codes
    }
}

/// [`Error::Count`] for an empty list, [`Error::Setting`] for a list with a token twice.
pub(super) fn check_tokens(tokens: &[u32]) -> Result<()> {
    const FUNCTION: &str = "multiplication_table";
    check_count(FUNCTION, "tokens", tokens.len(), 1, None)?;
    let mut seen = BTreeSet::new();
    match tokens.iter().find(|&&token| !seen.insert(token)) {
        None => Ok(()),
        Some(twice) => Err(Error::Setting {
            function: FUNCTION,
            option: "tokens",
            expected: "each token once".into(),
            found: format!("token {twice} twice"),
        }),
    }
}

/// Products as numbers: those in the list by their index, those outside of it by numbers from `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Codes {
    /// Shape: `[n, n]`.
    pub(super) codes: Array2<u32>,
}

impl Codes {
    fn new(tokens: &[u32], products: &Array2<u32>) -> Self {
        let mut codes: HashMap<u32, u32> = tokens.iter().copied().zip(0..).collect();
        let code = |&product: &u32| {
            let next = codes.len() as u32;
            *codes.entry(product).or_insert(next)
        };
        Self { codes: products.map(code) }
    }

    pub(super) fn n(&self) -> u32 {
        self.codes.nrows() as u32
    }

    pub(super) fn at(&self, a: u32, b: u32) -> u32 {
        self.codes[[a as usize, b as usize]]
    }

    fn outside(&self) -> impl Iterator<Item = u32> + '_ {
        self.codes.iter().copied().filter(|&code| code >= self.n())
    }

    /// The property of these products.
    pub(super) fn value(&self, property: TableProperty) -> Value {
        let n = self.n();
        let all = || (0..n).flat_map(move |a| (0..n).map(move |b| (a, b)));
        let pairs = || (0..n).flat_map(move |a| (0..a).map(move |b| (a, b)));
        let largest =
            |counts: &mut dyn Iterator<Item = u64>| Value { counted: counts.max().unwrap_or(0), of: n.into() };
        match property {
            TableProperty::Closure => Value::count(all(), |(a, b)| self.at(a, b) < n),
            TableProperty::Associativity => self.associativity(),
            TableProperty::Commutativity => Value::count(pairs(), |(a, b)| self.at(a, b) == self.at(b, a)),
            TableProperty::Idempotents => Value::count(0..n, |a| self.at(a, a) == a),
            TableProperty::LeftIdentity => {
                largest(&mut (0..n).map(|e| (0..n).filter(|&a| self.at(e, a) == a).count() as u64))
            }
            TableProperty::RightIdentity => {
                largest(&mut (0..n).map(|e| (0..n).filter(|&a| self.at(a, e) == a).count() as u64))
            }
            TableProperty::LeftCancellation => self.different_pairs(&|row, index| self.at(row, index)),
            TableProperty::RightCancellation => self.different_pairs(&|column, index| self.at(index, column)),
            TableProperty::LeftAlone => self.majorities(&|row, index| self.at(row, index)),
            TableProperty::RightAlone => self.majorities(&|column, index| self.at(index, column)),
        }
    }

    fn associativity(&self) -> Value {
        let n = self.n();
        let codes = self.codes.as_slice().expect("a table in standard layout");
        let row = |a: u32| &codes[a as usize * n as usize..][..n as usize];
        let mut value = Value::default();
        for a in 0..n {
            let row_of_a = row(a);
            for (b, &ab) in (0..n).zip(row_of_a).filter(|&(_, &ab)| ab < n) {
                for (&bc, &ab_c) in row(b).iter().zip(row(ab)).filter(|&(&bc, _)| bc < n) {
                    value.of += 1;
                    value.counted += u64::from(row_of_a[bc as usize] == ab_c);
                }
            }
        }
        value
    }

    /// The products in each line, with the number of their cells. Shape: → `[line] [distinct product]`.
    fn line_counts<'a>(&'a self, at: &'a dyn Fn(u32, u32) -> u32) -> impl Iterator<Item = Vec<u64>> + 'a {
        (0..self.n()).map(move |line| {
            let mut products: Vec<u32> = (0..self.n()).map(|index| at(line, index)).collect();
            products.sort_unstable();
            products.chunk_by(|a, b| a == b).map(|equal| equal.len() as u64).collect()
        })
    }

    /// The pairs of cells of a line whose products differ.
    fn different_pairs(&self, at: &dyn Fn(u32, u32) -> u32) -> Value {
        let n = u64::from(self.n());
        let pairs = |n: u64| n * (n - 1) / 2;
        let equal: u64 = self.line_counts(at).flatten().map(pairs).sum();
        Value { counted: n * pairs(n) - equal, of: n * pairs(n) }
    }

    /// The cells that have the most frequent product of their line.
    fn majorities(&self, at: &dyn Fn(u32, u32) -> u32) -> Value {
        let n = u64::from(self.n());
        Value { counted: self.line_counts(at).filter_map(|counts| counts.into_iter().max()).sum(), of: n * n }
    }

    /// Whether elements are closed, associative, and cancel on both sides: such a finite set is a group.
    fn is_group(&self, elements: &[u32]) -> bool {
        let product_of = |a: u32, b: u32| elements.binary_search(&self.at(a, b)).ok();
        let is_permutation = |product: &dyn Fn(u32) -> Option<usize>| {
            let mut seen = vec![false; elements.len()];
            elements.iter().all(|&b| product(b).is_some_and(|index| !std::mem::replace(&mut seen[index], true)))
        };
        let cancels = |&a: &u32| is_permutation(&|b| product_of(a, b)) && is_permutation(&|b| product_of(b, a));
        elements.iter().all(cancels)
            && elements.iter().all(|&a| {
                elements
                    .iter()
                    .all(|&b| elements.iter().all(|&c| self.at(self.at(a, b), c) == self.at(a, self.at(b, c))))
            })
    }

    /// The elements, ascending, that some elements generate, if they are a group.
    fn group_generated_by(&self, generators: &[u32]) -> Option<Vec<u32>> {
        let mut elements: BTreeSet<u32> = generators.iter().copied().collect();
        let mut new: Vec<u32> = elements.iter().copied().collect();
        while let Some(a) = new.pop() {
            for b in elements.clone() {
                for product in [self.at(a, b), self.at(b, a)] {
                    if product >= self.n() {
                        return None;
                    }
                    if elements.insert(product) {
                        new.push(product);
                    }
                }
            }
        }
        let elements: Vec<u32> = elements.into_iter().collect();
        self.is_group(&elements).then_some(elements)
    }
}
