//! What maps of a set into itself generate by being done one after the other: a monoid, and the groups in it.
//!
//! The product `a b` of two elements is `a` first, then `b`. The empty word, which changes nothing, is the identity. Every element
//! is a word in the generators; of the words that do the same, the shortest is its name.

use std::collections::{BTreeMap, HashMap};

use ndarray::Array2;

use crate::error::{Error, Result, check_count};
use crate::plot::{ChartAxis, Figure, MatrixChart, Table};

/// The monoid that some maps generate.
///
/// ```
/// use attention_tokens::experiments::Monoid;
///
/// // A third of a turn, and a reflection: the symmetries of a triangle.
/// let monoid = Monoid::generated_by(&[("r".into(), vec![1, 2, 0]), ("s".into(), vec![0, 2, 1])], 100)?;
/// assert_eq!((monoid.len(), monoid.is_group(), monoid.is_commutative()), (6, true, false));
/// # Ok::<(), attention_tokens::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Monoid {
    names: Vec<String>,
    /// Which element each of the maps is; `None` beyond the limit.
    generators: Vec<Option<usize>>,
    /// The words, as indices of generators; the identity's comes first and is empty.
    words: Vec<Vec<usize>>,
    /// What each element does: the image of each state.
    maps: Vec<Vec<usize>>,
    /// `products[a][b]` is the element that is `a`, then `b`; `None` beyond the limit.
    products: Array2<Option<usize>>,
    complete: bool,
}

/// A group within a monoid: elements that can be undone by each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its own identity, an idempotent of the monoid; index of the element.
    pub identity: usize,
    /// Indices of its elements, ascending.
    pub elements: Vec<usize>,
    /// Whether the order of two elements never matters.
    pub abelian: bool,
}

impl Monoid {
    /// All that the maps generate. Each has a name and gives, for each state from 0, the state that it goes to. Beyond `max_size`
    /// elements no new ones are looked for, and [`is_complete`](Self::is_complete) says so.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Count`] if the maps are not of one set into itself, [`Error::Count`] if `max_size`
    /// is 0.
    pub fn generated_by(generators: &[(String, Vec<usize>)], max_size: usize) -> Result<Self> {
        let n_states = generators.first().map_or(0, |(_, map)| map.len());
        const FUNCTION: &str = "Monoid::generated_by";
        for (name, map) in generators {
            if map.len() != n_states {
                return Err(Error::Shape {
                    what: format!("{FUNCTION}: the map of {name:?}"),
                    axes: "[n_states]",
                    expected: vec![n_states],
                    found: vec![map.len()],
                    hint: "every map gives a state for each state",
                });
            }
            if let Some(&found) = map.iter().find(|&&state| state >= n_states) {
                let what = format!("a state in the map of {name:?}");
                return Err(Error::Count {
                    function: FUNCTION,
                    what,
                    found,
                    min: 0,
                    max: Some(n_states - 1),
                    hint: None,
                });
            }
        }
        check_count(FUNCTION, "max_size", max_size, 1, None)?;
        let identity: Vec<usize> = (0..n_states).collect();
        let mut indices = HashMap::from([(identity.clone(), 0)]);
        let (mut words, mut maps) = (vec![Vec::new()], vec![identity]);
        let mut complete = true;
        let mut next = 0;
        // Word by word, shorter ones first: what is found first has the shortest word.
        while next < maps.len() {
            for (generator, (_, map)) in generators.iter().enumerate() {
                let product = then(&maps[next], map);
                if indices.contains_key(&product) {
                    continue;
                }
                if maps.len() == max_size {
                    complete = false;
                    continue;
                }
                indices.insert(product.clone(), maps.len());
                words.push([words[next].as_slice(), &[generator]].concat());
                maps.push(product);
            }
            next += 1;
        }
        let product = |(a, b): (usize, usize)| indices.get(&then(&maps[a], &maps[b])).copied();
        let products = Array2::from_shape_fn((maps.len(), maps.len()), product);
        let names = generators.iter().map(|(name, _)| name.clone()).collect();
        let generators = generators.iter().map(|(_, map)| indices.get(map).copied()).collect();
        Ok(Self { names, generators, words, maps, products, complete })
    }

    /// Number of elements, the identity included.
    pub fn len(&self) -> usize {
        self.maps.len()
    }

    /// Never: the identity is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether these are all elements. Where they are not, what is said of the monoid is said of those that were found.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// An element's shortest word, `1` for the identity.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn word(&self, element: usize) -> String {
        match &self.words[element][..] {
            [] => "1".into(),
            word => word.iter().map(|&generator| self.names[generator].as_str()).collect::<Vec<_>>().join("·"),
        }
    }

    /// What an element does: the image of each state.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn map(&self, element: usize) -> &[usize] {
        &self.maps[element]
    }

    /// The element that is `a`, then `b`; `None` if it is beyond the limit.
    ///
    /// # Panics
    /// If there are no such elements.
    pub fn product(&self, a: usize, b: usize) -> Option<usize> {
        self.products[[a, b]]
    }

    /// The elements that are the same done twice as done once. The identity is one.
    pub fn idempotents(&self) -> Vec<usize> {
        (0..self.len()).filter(|&element| self.product(element, element) == Some(element)).collect()
    }

    /// The elements that can be undone, each with the one that undoes it before and after.
    pub fn inverses(&self) -> Vec<(usize, usize)> {
        let undoes = |a: usize, b: usize| self.product(a, b) == Some(0) && self.product(b, a) == Some(0);
        let inverse = |a: usize| (0..self.len()).find(|&b| undoes(a, b)).map(|b| (a, b));
        (0..self.len()).filter_map(inverse).collect()
    }

    /// Elements that leave all states where they are: the empty word alone is one. What is of interest is which longer words do
    /// nothing either; of these, the shortest that end in each generator.
    pub fn identity_words(&self) -> Vec<String> {
        let word = |(name, &last): (&String, &Option<usize>)| {
            let last = last?;
            let before = (0..self.len()).find(|&element| self.product(element, last) == Some(0))?;
            Some(if before == 0 { name.clone() } else { format!("{}·{name}", self.word(before)) })
        };
        self.names.iter().zip(&self.generators).filter_map(word).collect()
    }

    /// The groups in it, largest first: of each idempotent, all elements that return to themselves through it. An idempotent alone
    /// is a group of one element.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for element in 0..self.len() {
            // Powers of an element end in a circle. It is in a group if it lies on the circle itself, whose identity is then the
            // last power before it comes again.
            let mut power = element;
            for _ in 0..=self.len() {
                match self.product(power, element) {
                    Some(next) if next == element => {
                        groups.entry(power).or_default().push(element);
                        break;
                    }
                    Some(next) => power = next,
                    None => break,
                }
            }
        }
        let commute = |a: usize, b: usize| self.product(a, b) == self.product(b, a);
        let abelian = |elements: &[usize]| elements.iter().all(|&a| elements.iter().all(|&b| commute(a, b)));
        let group =
            |(identity, elements): (usize, Vec<usize>)| Group { identity, abelian: abelian(&elements), elements };
        let mut groups: Vec<Group> = groups.into_iter().map(group).collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.elements.len()), group.identity));
        groups
    }

    /// Whether every element can be undone.
    pub fn is_group(&self) -> bool {
        self.complete && self.inverses().len() == self.len()
    }

    /// Whether the order of two elements never matters.
    pub fn is_commutative(&self) -> bool {
        (0..self.len()).all(|a| (0..a).all(|b| self.product(a, b) == self.product(b, a)))
    }

    /// Everything above, in a table.
    pub fn table(&self) -> Table {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let words = |elements: &[usize]| {
            let shown: Vec<String> = elements.iter().take(8).map(|&element| self.word(element)).collect();
            let more = if elements.len() > 8 { ", …" } else { "" };
            format!("{}: {}{more}", elements.len(), shown.join(", "))
        };
        let groups = self.groups();
        let largest = groups.first().map_or(String::new(), |group| {
            let kind = if group.abelian { "abelian" } else { "not abelian" };
            format!("{} elements, {kind}, identity {}", group.elements.len(), self.word(group.identity))
        });
        let inverses: Vec<usize> = self.inverses().into_iter().map(|(element, _)| element).collect();
        let rows = [
            ("elements", words(&(0..self.len()).collect::<Vec<_>>())),
            ("all of them found", yes(self.complete)),
            ("idempotents", words(&self.idempotents())),
            ("elements with an inverse", words(&inverses)),
            ("longer words that do nothing", self.identity_words().join(", ")),
            ("a group as a whole", yes(self.is_group())),
            ("commutative", yes(self.is_commutative())),
            ("groups in it", groups.len().to_string()),
            ("the largest", largest),
        ];
        let rows = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
        Table::new("The monoid that the maps generate", &["", ""], rows)
    }

    /// The multiplication table: row first, then column. At most 24 elements are shown, those with the shortest words.
    pub fn plot(&self) -> Figure {
        const MOST: usize = 24;
        let n = self.len().min(MOST);
        let shown = if n < self.len() { format!(", {n} of {} elements", self.len()) } else { String::new() };
        let value = |(a, b)| self.product(a, b).map_or(f32::NAN, |product| product as f32);
        let cells = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
        let name = |product: Option<usize>| product.map_or("beyond the limit".to_owned(), |product| self.word(product));
        let text = |(a, b)| format!("{}, then {}: {}", self.word(a), self.word(b), name(self.product(a, b)));
        MatrixChart {
            title: format!("Multiplication table{shown}"),
            rows: ChartAxis::names("first", (0..n).map(|element| self.word(element))),
            columns: ChartAxis::names("then", (0..n).map(|element| self.word(element))),
            values: Array2::from_shape_fn((n, n), value),
            scale: ("element".into(), [0.0, (self.len() - 1).max(1) as f32]),
            labels: cells.clone().map(|(a, b)| name(self.product(a, b))).collect(),
            texts: cells.map(text).collect(),
        }
        .figure()
    }
}

/// One map after another.
fn then(first: &[usize], second: &[usize]) -> Vec<usize> {
    first.iter().map(|&state| second[state]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monoid(generators: &[(&str, &[usize])]) -> Monoid {
        let generators: Vec<(String, Vec<usize>)> =
            generators.iter().map(|(name, map)| ((*name).to_owned(), map.to_vec())).collect();
        Monoid::generated_by(&generators, 1_000).unwrap()
    }

    #[test]
    fn a_turn_generates_a_cyclic_group() {
        let cyclic = monoid(&[("r", &[1, 2, 3, 4, 0])]);
        assert_eq!(
            (cyclic.len(), cyclic.is_complete(), cyclic.is_group(), cyclic.is_commutative()),
            (5, true, true, true)
        );
        assert_eq!(cyclic.idempotents(), [0]);
        assert_eq!(cyclic.identity_words(), ["r·r·r·r·r"]);
        // r and r⁴, r² and r³ undo each other.
        assert_eq!(cyclic.inverses(), [(0, 0), (1, 4), (2, 3), (3, 2), (4, 1)]);
        let groups = cyclic.groups();
        assert_eq!(groups, [Group { identity: 0, elements: vec![0, 1, 2, 3, 4], abelian: true }]);
    }

    #[test]
    fn the_symmetries_of_a_triangle_are_a_group_that_is_not_abelian() {
        let s3 = monoid(&[("r", &[1, 2, 0]), ("s", &[0, 2, 1])]);
        assert_eq!((s3.len(), s3.is_group(), s3.is_commutative()), (6, true, false));
        assert_eq!(s3.identity_words(), ["r·r·r", "s·s"]);
        assert_eq!(s3.groups(), [Group { identity: 0, elements: (0..6).collect(), abelian: false }]);
        // r, then s is not s, then r.
        let of = |word: &str| (0..6).find(|&element| s3.word(element) == word).unwrap();
        assert_ne!(s3.product(of("r"), of("s")), s3.product(of("s"), of("r")));
        assert_eq!(s3.map(of("r·s")), [2, 1, 0]); // 0 → 1 → 2, 1 → 2 → 1, 2 → 0 → 0
    }

    #[test]
    fn a_constant_map_cannot_be_undone() {
        let constant = monoid(&[("c", &[2, 2, 2])]);
        assert_eq!((constant.len(), constant.is_group(), constant.is_commutative()), (2, false, true));
        assert_eq!((constant.idempotents(), constant.inverses()), (vec![0, 1], vec![(0, 0)]));
        assert!(constant.identity_words().is_empty());
        let one = |identity| Group { identity, elements: vec![identity], abelian: true };
        assert_eq!(constant.groups(), [one(0), one(1)]);
        // Two constants: the last one wins.
        let two = monoid(&[("a", &[0, 0]), ("b", &[1, 1])]);
        assert_eq!(
            (two.len(), two.is_commutative(), two.product(1, 2), two.product(2, 1)),
            (3, false, Some(2), Some(1))
        );
    }

    /// A swap of two states, after everything has been moved there: a group of two elements whose identity is not the monoid's.
    #[test]
    fn a_group_can_lie_inside_a_monoid_that_is_none() {
        let inside = monoid(&[("x", &[1, 0, 0])]);
        // x² maps 2 to 1, and is the identity of the group {x, x²}.
        assert_eq!((inside.len(), inside.is_group()), (3, false));
        assert_eq!(inside.groups()[0], Group { identity: 2, elements: vec![1, 2], abelian: true });
        assert_eq!(inside.idempotents(), [0, 2]);
    }

    #[test]
    fn products_are_associative_and_the_full_transformation_monoid_has_all_maps() {
        // A turn, a swap and a collapse generate all 3³ maps of three states.
        let all = monoid(&[("r", &[1, 2, 0]), ("s", &[1, 0, 2]), ("c", &[0, 0, 2])]);
        assert_eq!((all.len(), all.is_complete()), (27, true));
        for (a, b, c) in (0..27).flat_map(|a| (0..27).flat_map(move |b| (0..27).map(move |c| (a, b, c)))) {
            let (ab, bc) = (all.product(a, b).unwrap(), all.product(b, c).unwrap());
            assert_eq!(all.product(ab, c), all.product(a, bc));
        }
        // Idempotents of three states: the identity, 6 of rank two, 3 constants. Groups: S3, three of order 2 or 1 by idempotent.
        assert_eq!(all.idempotents().len(), 10);
        let sizes: Vec<usize> = all.groups().iter().map(|group| group.elements.len()).collect();
        assert_eq!(sizes, [6, 2, 2, 2, 2, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn a_limit_is_kept_and_said() {
        let r = ("r".to_owned(), vec![1, 2, 3, 4, 0]);
        let limited = Monoid::generated_by(&[r], 3).unwrap();
        assert_eq!((limited.len(), limited.is_complete(), limited.is_group()), (3, false, false));
        assert_eq!((limited.product(1, 1), limited.product(2, 1)), (Some(2), None));
        assert!(Monoid::generated_by(&[("a".into(), vec![0, 1]), ("b".into(), vec![0])], 9).is_err());
        let message = Monoid::generated_by(&[("a".into(), vec![2, 1])], 9).unwrap_err().to_string();
        assert_eq!(message, "Monoid::generated_by: a state in the map of \"a\": expected 0 to 1, found 2");
        assert!(Monoid::generated_by(&[], 0).is_err());
        // A map that does nothing is the identity; two that do the same are one element.
        let same =
            Monoid::generated_by(&[("i".into(), vec![0, 1]), ("a".into(), vec![1, 0]), ("b".into(), vec![1, 0])], 9)
                .unwrap();
        assert_eq!((same.len(), same.identity_words()), (2, vec!["i".to_owned(), "a·a".into(), "a·b".into()]));
    }
}
