//! Appending a token as an operation on a head's attention tokens: is it a map, and do the maps form a group?

mod graph_layout;
mod monoid;
mod token_map;

use std::collections::BTreeMap;

use ndarray::Array2;

pub use self::monoid::{Group, Monoid};
pub use self::token_map::TokenMap;
use crate::attention_tokens::{DecodeOptions, head_data};
use crate::decode::Reading;
use crate::error::{Error, Result, check_count};
use crate::model::{Gpt2, RunOptions};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, MatrixChart, Series, Table};
use crate::tokenizer::TokenLabels;

/// The result of [`appending()`].
#[derive(Clone, Debug)]
pub struct Appending {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// How cells were read as tokens.
    pub reading: Reading,
    /// The tokens that were appended.
    pub appended: Vec<u32>,
    /// The transitions of each appended token, from the prompts alone and from the prompts with one token of the set
    /// appended. Shape: `[appended]`.
    pub maps: Vec<TokenMap>,
    /// The proportion of the prompts' positions where appending `x`, then `y` gives the same token as `y`, then `x`; 1
    /// on the diagonal. Shape: `[x, y]`.
    pub commuting: Array2<f32>,
    /// The proportion to expect by chance: if each prompt's tokens of one of the two orders were assigned to its
    /// positions at random. Shape: `[x, y]`.
    pub commuting_by_chance: Array2<f32>,
    n_prompts: usize,
    labels: TokenLabels,
}

/// Appends every pair of the tokens to every prompt, and follows the attention tokens of a head. `reading` is a
/// [`Reading`], or a [`Projection`](crate::Projection).
///
/// **Question.** The original claims that appending a token acts on the tokens before it like the operation of a
/// non-abelian group.
///
/// **Statistic.** IN is the last row of a head's attention tokens on a prompt, and OUT the last row after a token `x`
/// is appended, at the same positions. Each position is a transition from an IN token to an OUT token. If OUT depends
/// on IN and `x` alone, `x` is a map of tokens to tokens. [`TokenMap::conflict_rate`] measures how far it is from one;
/// [`Appending::monoid`] takes the majority of each IN token as the map, and composes the maps. Whether the order of
/// two tokens matters needs no map:
///
/// ```text
/// commuting[x, y] = positions with the same token after x y and after y x / positions
/// ```
///
/// **Control.** [`TokenMap::conflict_rate_without_in`] for the conflict rate, [`Appending::commuting_by_chance`] for
/// the order. The tests recover a rotation, the symmetries of a triangle and a constant map from transitions made of
/// them.
///
/// **Limits.** The maps are majorities, so the monoid describes a simplified head, the more so the higher the conflict
/// rate. It depends on the tokens, on the number of states, and on the basis of the head. After `x y` and after `y x`
/// the last query belongs to another token, which alone can make the rows differ.
///
/// Attention is causal, so one run of the prompt with `x` and `y` appended has all three rows: before, after `x`, after
/// `x y`.
///
/// ```
/// use attention_tokens::{experiments::appending, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let tokens = [model.to_single_token(" and")?, model.to_single_token(".")?];
/// let result = appending(&model, 0, 1, &["The next bus is late", "Monday, Tuesday"], &tokens, Projection::Notebook)?;
/// // 10 positions: each token is appended to the prompts, and to the prompts with either of the two tokens appended.
/// assert_eq!(result.maps[0].n_observations(), 10 + 2 * 10);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] if there are no prompts or tokens; [`Error::Prompt`] if
/// a prompt has no tokens, or is longer than the context with two more; otherwise as for [`head_data`].
pub fn appending(
    model: &Gpt2,
    layer: usize,
    head: usize,
    prompts: &[&str],
    tokens: &[u32],
    reading: impl Into<Reading>,
) -> Result<Appending> {
    appending_with(model, [layer, head], prompts, tokens, reading.into())
}

/// [`appending`] without the generic parameter.
fn appending_with(
    model: &Gpt2,
    [layer, head]: [usize; 2],
    prompts: &[&str],
    tokens: &[u32],
    reading: Reading,
) -> Result<Appending> {
    check_count("appending", "prompts", prompts.len(), 1, None)?;
    check_count("appending", "tokens", tokens.len(), 1, None)?;
    let n = tokens.len();
    let mut maps = vec![TokenMap::new(); n];
    let (mut same, mut by_chance) = (Array2::<f32>::zeros((n, n)), Array2::<f32>::zeros((n, n))); // [x, y]
    let mut positions = 0;
    for (index, prompt) in prompts.iter().enumerate() {
        let prompt = model.to_tokens(prompt)?;
        let pos = prompt.len();
        if pos == 0 {
            return Err(Error::Prompt { prompt: index, len: 0, n_ctx: model.config().n_ctx });
        }
        let appended_pairs = tokens.iter().flat_map(|&x| tokens.iter().map(move |&y| [x, y]));
        let batch: Vec<Vec<u32>> = appended_pairs.map(|pair| [prompt.as_slice(), &pair].concat()).collect();
        let options = RunOptions::for_head_data().layers([layer]);
        let (_, cache) = model.run_with_cache_options(batch, options)?;
        let data = head_data(model, &cache, layer, head, DecodeOptions::from(reading))?;
        // The last row after x y, at the prompt's positions: [x] [y] [pos].
        let mut last: Vec<Vec<Vec<u32>>> = vec![Vec::with_capacity(n); n];
        for (index, data) in data.prompts().iter().enumerate() {
            let (x, y) = (index / n, index % n);
            let [before, after_x, after_y] = [pos - 1, pos, pos + 1].map(|query| data.tokens_of_query(query));
            // The transition from the prompt to the prompt with x is in n runs, and counts once.
            if y == 0 {
                before.iter().zip(&after_x).for_each(|(&from, &to)| maps[x].observe(from, to));
            }
            after_x[..pos].iter().zip(&after_y).for_each(|(&from, &to)| maps[y].observe(from, to));
            last[x].push(after_y[..pos].to_vec());
        }
        positions += pos;
        for (x, y) in (0..n).flat_map(|x| (0..n).map(move |y| (x, y))) {
            let (xy, yx) = (&last[x][y], &last[y][x]);
            same[[x, y]] += xy.iter().zip(yx).filter(|(a, b)| a == b).count() as f32;
            let pairs = xy.iter().flat_map(|a| yx.iter().map(move |b| a == b));
            by_chance[[x, y]] += pairs.filter(|&same| same).count() as f32 / pos as f32;
        }
    }
    Ok(Appending {
        layer,
        head,
        reading,
        appended: tokens.to_vec(),
        maps,
        commuting: same / positions as f32,
        commuting_by_chance: by_chance / positions as f32,
        n_prompts: prompts.len(),
        labels: model.token_labels(),
    })
}

impl Appending {
    /// A token as tables and figures show it.
    fn label(&self, token: u32) -> String {
        self.labels.label(token)
    }

    /// A table with a row for each appended token: how close it is to a map, whether that is injective, and its fixed
    /// points.
    pub fn table(&self) -> Table {
        let row = |(&token, map): (&u32, &TokenMap)| {
            let fixed = map.fixed_points();
            let shown: Vec<String> = fixed.iter().take(6).map(|&token| self.label(token)).collect();
            let more = if fixed.len() > 6 { " …" } else { "" };
            vec![
                self.label(token),
                map.n_observations().to_string(),
                map.in_counts().count().to_string(),
                format!("{:.3}", map.conflict_rate()),
                format!("{:.3}", map.conflict_rate_without_in()),
                if map.is_injective() { "yes" } else { "no" }.into(),
                format!("{} {}{more}", fixed.len(), shown.join(" ")),
            ]
        };
        let header =
            ["appended", "steps", "IN tokens", "conflict rate", "not looking at IN", "injective", "fixed points"];
        Table::new(self.caption("Appending"), &header, self.appended.iter().zip(&self.maps).map(row).collect())
    }

    /// [`commuting`](Self::commuting) as a matrix: where the order of two appended tokens does not matter.
    pub fn plot_commuting(&self) -> Figure {
        let names = || self.appended.iter().map(|&token| self.label(token));
        let text = |((x, y), share): ((usize, usize), &f32)| {
            let chance = self.commuting_by_chance[[x, y]];
            let [x, y] = [x, y].map(|index| self.label(self.appended[index]));
            format!(
                "same token: {share:.3} of the positions\nby chance: {chance:.3}\n{x}, then {y}, and the other way round"
            )
        };
        MatrixChart {
            title: self.caption("Where the order of two tokens does not matter"),
            rows: ChartAxis::names("one", names()),
            columns: ChartAxis::names("the other", names()),
            texts: self.commuting.indexed_iter().map(text).collect(),
            labels: Vec::new(),
            values: self.commuting.clone(),
            scale: ("same".into(), [0.0, 1.0]),
        }
        .figure()
    }

    /// The states that the maps act on: the `max_states` most frequent IN tokens, most frequent first. Shape: →
    /// `[state]`.
    fn states(&self, max_states: usize) -> Vec<u32> {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for (token, count) in self.maps.iter().flat_map(TokenMap::in_counts) {
            *counts.entry(token).or_default() += count;
        }
        let mut states: Vec<(u64, u32)> = counts.into_iter().map(|(token, count)| (count, token)).collect();
        states.sort_by_key(|&(count, token)| (std::cmp::Reverse(count), token));
        states.into_iter().take(max_states).map(|(_, token)| token).collect()
    }

    /// The states, and the maps as functions on them: the image of each state is its most frequent OUT token. One more
    /// state, the last, stands for all other tokens and for transitions that were not observed; it maps to itself.
    /// Shape: → `[state]`, `[appended] [state + 1]`.
    fn functions(&self, max_states: usize) -> (Vec<u32>, Vec<Vec<usize>>) {
        let states = self.states(max_states);
        let other = states.len();
        let index: BTreeMap<u32, usize> = states.iter().enumerate().map(|(index, &token)| (token, index)).collect();
        let function = |map: &TokenMap| {
            let to = map.most_frequent();
            let image = |token: &u32| to.get(token).and_then(|to| index.get(to)).copied().unwrap_or(other);
            states.iter().map(image).chain([other]).collect()
        };
        let functions = self.maps.iter().map(function).collect();
        (states, functions)
    }

    /// The monoid that the maps generate, each taken as a function on the `max_states` most frequent tokens: a token
    /// maps to its most frequent OUT token. (One more state stands for all other tokens, and maps to itself.) The
    /// conflict rates in [`table`](Self::table) measure how much of the transitions these functions leave out.
    ///
    /// # Errors
    /// As for [`Monoid::generated_by`].
    pub fn monoid(&self, max_states: usize, max_size: usize) -> Result<Monoid> {
        let (_, functions) = self.functions(max_states);
        let names = self.appended.iter().map(|&token| self.label(token));
        Monoid::generated_by(&names.zip(functions).collect::<Vec<_>>(), max_size)
    }

    /// The graph of the maps on the `max_states` most frequent tokens: an arrow from each token to its most frequent
    /// OUT token, in a colour for each appended token. A fixed point has a loop; the hover text of a node lists where each
    /// map takes it.
    pub fn plot_transitions(&self, max_states: usize) -> Figure {
        let (states, functions) = self.functions(max_states);
        let edges: Vec<Vec<(usize, usize)>> =
            functions.iter().map(|to| (0..states.len()).map(|from| (from, to[from])).collect()).collect();
        // The state of all other tokens is drawn only if an arrow ends there.
        let used = edges.iter().flatten().any(|&(_, to)| to == states.len());
        let n_nodes = states.len() + usize::from(used);
        let positions = graph_layout::layered(n_nodes, edges.iter().flatten().copied());
        let name = |state: usize| states.get(state).map_or("anything else".into(), |&token| self.label(token));
        let n = self.appended.len();
        let arrows = edges.iter().enumerate().map(|(index, edges)| {
            let points = edges.iter().flat_map(|&(from, to)| [positions[from], positions[to]]).collect();
            let color = Color::of_layer(index, n);
            let name = format!("append {}", self.label(self.appended[index]));
            Series { symbol: index, ..Series::new(name, Form::Arrows, color, points) }
        });
        let text = |state: usize| {
            let goes = |(&token, to): (&u32, &Vec<usize>)| format!("append {}: {}", self.label(token), name(to[state]));
            let lines: Vec<String> = self.appended.iter().zip(&functions).map(goes).collect();
            format!("{}\n{}", name(state), lines.join("\n"))
        };
        let nodes = Series {
            texts: (0..n_nodes).map(text).collect(),
            labels: (0..n_nodes).map(name).collect(),
            ..Series::new("", Form::Nodes, Color::Text, positions.clone())
        };
        Chart {
            title: self.caption("Where tokens go"),
            x: ChartAxis::hidden(),
            y: ChartAxis::hidden(),
            series: arrows.chain([nodes]).collect(),
        }
        .figure()
    }

    /// A figure's title with the head, the projection and the number of prompts.
    fn caption(&self, title: &str) -> String {
        let prompts = if self.n_prompts == 1 { "prompt" } else { "prompts" };
        let (layer, head, projection) = (self.layer, self.head, self.reading.in_words());
        format!("{title}: head {layer}.{head}, through {projection}, {} {prompts}", self.n_prompts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(transitions: &[(u32, u32)]) -> TokenMap {
        transitions.iter().copied().collect()
    }

    /// A result with constructed transitions instead of those of a model.
    fn appending_with(maps: Vec<TokenMap>) -> Appending {
        let n = maps.len();
        Appending {
            layer: 0,
            head: 0,
            reading: Reading::NOTEBOOK,
            appended: (100..100 + n as u32).collect(),
            maps,
            commuting: Array2::ones((n, n)),
            commuting_by_chance: Array2::ones((n, n)),
            n_prompts: 1,
            labels: TokenLabels::new(None),
        }
    }

    #[test]
    fn constructed_maps_generate_their_groups() {
        let rotation = map(&[(10, 20), (20, 30), (30, 10)]);
        let swap = map(&[(10, 10), (20, 30), (30, 20)]);
        let cyclic = appending_with(vec![rotation.clone()]).monoid(10, 100).unwrap();
        assert_eq!((cyclic.len(), cyclic.is_group(), cyclic.is_commutative()), (3, true, true));
        let s3 = appending_with(vec![rotation.clone(), swap]).monoid(10, 100).unwrap();
        assert_eq!((s3.len(), s3.is_group(), s3.is_commutative()), (6, true, false));
        let constant = appending_with(vec![map(&[(10, 20), (20, 20), (30, 20)])]).monoid(10, 100).unwrap();
        assert_eq!((constant.len(), constant.is_group(), constant.groups().len()), (2, false, 2));
        // On two of the three states, the rotation leads out of them and is not invertible.
        let cut = appending_with(vec![rotation]).monoid(2, 100).unwrap();
        assert!(!cut.is_group());
    }

    #[test]
    fn plot_transitions_draws_every_state_once() {
        let figure =
            appending_with(vec![map(&[(1, 2), (2, 3), (3, 1)]), map(&[(1, 1), (2, 9), (3, 1)])]).plot_transitions(10);
        let json: serde_json::Value = serde_json::from_str(&figure.to_json()).unwrap();
        let traces = json["data"].as_array().unwrap();
        assert_eq!(traces.len(), 3);
        let labels = json["layout"]["annotations"].as_array().unwrap().iter();
        let nodes: Vec<&str> = labels.map(|label| label["text"].as_str().unwrap()).collect();
        assert_eq!(nodes, ["#1", "#2", "#3", "anything else"]);
        assert_eq!(traces[0]["name"], "append #100");
        assert!(figure.to_svg().is_some());
    }
}
