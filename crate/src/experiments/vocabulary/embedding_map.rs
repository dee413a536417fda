//! Map of a vocabulary: the embeddings of the most frequent tokens in two dimensions, by PCA or t-SNE.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis, s};

use super::counts::{Component, Source, VocabularyCounts};
use super::rank_frequency::ranked;
use crate::error::{Result, check_count};
use crate::experiments::singular_vectors::svd_of_gram;
use crate::model::Gpt2;
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series};

/// Reduction of embeddings to two dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MapMethod {
    /// The projection on the first two principal components, the directions of largest variance. It can shorten
    /// distances but not lengthen them.
    #[default]
    Pca,
    /// t-SNE (van der Maaten and Hinton, Journal of Machine Learning Research 9, 2008), exact, started from the
    /// principal components, with 1000 steps. It keeps neighbours together; distances between groups and sizes of
    /// groups mean nothing. Needs the feature `tsne`, which the prebuilt library of notebooks has.
    #[cfg(feature = "tsne")]
    TSne {
        /// Effective number of neighbours of a token, from 1 to (*n* − 1) / 3 for *n* tokens.
        perplexity: f64,
    },
}

impl MapMethod {
    /// `"PCA"` or `"t-SNE"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pca => "PCA",
            #[cfg(feature = "tsne")]
            Self::TSne { .. } => "t-SNE",
        }
    }
}

/// The most frequent tokens in two dimensions, each with the layer that uses it most.
///
/// **Question.** Do layers have regions of meaning of their own?
///
/// **Statistic.** The rows of `W_E` of the most frequent tokens, reduced by a [`MapMethod`]. The colour is the layer
/// with the largest count of the token.
///
/// **Limits.** Two dimensions hold a small part of the variance: compare [`variance`](Self::variance).
#[derive(Clone, Debug)]
pub struct EmbeddingMap {
    /// The component that was counted.
    pub component: Component,
    /// The reduction to two dimensions.
    pub method: MapMethod,
    /// The tokens, most frequent first. Shape: `[token]`.
    pub tokens: Vec<u32>,
    /// The coordinates of each token. Shape: `[token, 2]`.
    pub places: Array2<f64>,
    /// The layer whose heads use each token most often; the lowest on a tie. Shape: `[token]`.
    pub layers: Vec<usize>,
    /// The proportion of the embeddings' variance along the first and the second principal component.
    pub variance: [f64; 2],
    labels: Vec<String>,
    n_layers: usize,
    /// The choice about `b_U`, for the title.
    without_bias: &'static str,
}

impl VocabularyCounts {
    /// A map of the `max_tokens` most frequent tokens of all heads. Shape: `W_E [d_vocab, d_model]` → `[token, 2]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) or [`Error::OtherCounts`](crate::Error::OtherCounts) if it is another model
    /// than the one that was counted, [`Error::Count`](crate::Error::Count) if there are fewer than three tokens,
    /// [`Error::Perplexity`](crate::Error::Perplexity) if it does not fit their number,
    /// [`Error::Device`](crate::Error::Device) if the device fails.
    pub fn embedding_map(
        &self,
        model: &Gpt2,
        component: Component,
        max_tokens: usize,
        method: MapMethod,
    ) -> Result<EmbeddingMap> {
        self.check_same_source(&Source::new(model, self.source.reading)?)?;
        let tokens: Vec<u32> =
            ranked(&self.totals(component)).into_iter().take(max_tokens).map(|(token, _)| token).collect();
        check_count("embedding_map", "tokens", tokens.len(), 3, None)?;
        let rows: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
        let embeddings = model.w_e()?.select(Axis(0), &rows).mapv(f64::from); // [token, d_model]
        let (principal, variance) = principal_components(embeddings.clone());
        let places = match method {
            MapMethod::Pca => principal,
            #[cfg(feature = "tsne")]
            MapMethod::TSne { perplexity } => t_sne(&embeddings, principal, perplexity)?,
        };
        let n_layers = self.source.n_layers;
        let mut by_layer: Vec<BTreeMap<u32, u64>> = vec![BTreeMap::new(); n_layers];
        for ((layer, _), counts) in self.heads(component) {
            counts.iter().for_each(|(&token, count)| *by_layer[layer].entry(token).or_default() += count);
        }
        let most_frequent_layer = |token: &u32| {
            let count = |layer: &usize| by_layer[*layer].get(token).copied().unwrap_or(0);
            (0..n_layers).max_by_key(|layer| (count(layer), std::cmp::Reverse(*layer))).unwrap_or(0)
        };
        let layers = tokens.iter().map(most_frequent_layer).collect();
        let labels = tokens.iter().map(|&token| self.label(token)).collect();
        let without_bias = self.source.without_bias();
        Ok(EmbeddingMap { component, method, tokens, places, layers, variance, labels, n_layers, without_bias })
    }
}

impl EmbeddingMap {
    /// The map, a point for each token; the hover text is the token. Tokens have their labels beside them where there is
    /// room, the most frequent ones first.
    pub fn plot(&self) -> Figure {
        let labelled = self.with_room_for_a_label();
        let label = |&index: &usize| if labelled[index] { self.labels[index].clone() } else { String::new() };
        let series = |layer: usize| {
            let own: Vec<usize> = (0..self.tokens.len()).filter(|&index| self.layers[index] == layer).collect();
            let points = own.iter().map(|&index| [self.places[[index, 0]], self.places[[index, 1]]]).collect();
            let text = |&index: &usize| format!("{}\nlayer {layer} uses it most", self.labels[index]);
            Series {
                symbol: layer,
                texts: own.iter().map(text).collect(),
                labels: own.iter().map(label).collect(),
                ..Series::new(format!("layer {layer}"), Form::Points, Color::of_layer(layer, self.n_layers), points)
            }
        };
        let axis = |index: usize| match self.method {
            MapMethod::Pca => ChartAxis::linear(&format!(
                "principal component {} ({:.1}% of the variance)",
                index + 1,
                100.0 * self.variance[index]
            )),
            #[cfg(feature = "tsne")]
            MapMethod::TSne { .. } => ChartAxis::hidden(),
        };
        let (n, component, method) = (self.tokens.len(), self.component.name(), self.method.name());
        let without_bias = self.without_bias;
        Chart {
            title: format!("The {n} most frequent tokens ({component}{without_bias}) by their embeddings, {method}"),
            x: axis(0),
            y: axis(1),
            series: (0..self.n_layers).map(series).collect(),
        }
        .figure()
    }
}

impl EmbeddingMap {
    /// Whether each token is labelled: its label must be clear of those of more frequent tokens. Shape: → `[token]`.
    fn with_room_for_a_label(&self) -> Vec<bool> {
        // Sizes of a label, as shares of the figure: a character, and a line.
        const CHARACTER: f64 = 0.009;
        const LINE: f64 = 0.035;
        let range = |axis: usize| {
            let column = self.places.column(axis);
            let low = column.iter().copied().fold(f64::INFINITY, f64::min);
            let high = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (low, (high - low).max(f64::MIN_POSITIVE))
        };
        let ranges = [range(0), range(1)];
        let mut taken: Vec<[f64; 3]> = Vec::new(); // middle, and half of the width
        let has_room = |index: usize| {
            let [x, y] = [0, 1].map(|axis| (self.places[[index, axis]] - ranges[axis].0) / ranges[axis].1);
            let half = CHARACTER * (self.labels[index].chars().count() as f64 + 1.0) / 2.0;
            let room = taken.iter().all(|&[other_x, other_y, other_half]| {
                (x - other_x).abs() > half + other_half || (y - other_y).abs() > LINE
            });
            if room {
                taken.push([x, y, half]);
            }
            room
        };
        (0..self.tokens.len()).map(has_room).collect()
    }
}

/// The coordinates of the rows along their first two principal components, and the proportion of the variance along
/// each. Shape: `[n, d]` → `[n, 2]`, `[2]`.
fn principal_components(mut rows: Array2<f64>) -> (Array2<f64>, [f64; 2]) {
    let mean = rows.mean_axis(Axis(0)).expect("there are rows");
    rows -= &mean;
    let (singular_values, directions) = svd_of_gram(rows.t().dot(&rows));
    let all: f64 = singular_values.iter().map(|value| value * value).sum();
    let proportion =
        |index: usize| singular_values.get(index).map_or(0.0, |value| value * value / all.max(f64::MIN_POSITIVE));
    let mut places = Array2::zeros((rows.nrows(), 2));
    let dimensions = directions.ncols().min(2);
    places.slice_mut(s![.., ..dimensions]).assign(&rows.dot(&directions.slice(s![.., ..dimensions])));
    (places, [proportion(0), proportion(1)])
}

/// t-SNE of the rows, started from their principal components. It runs on one thread, because the order of its
/// floating-point sums must be the same each time. Shape: `[n, d]`, `[n, 2]` → `[n, 2]`.
#[cfg(feature = "tsne")]
fn t_sne(rows: &Array2<f64>, principal: Array2<f64>, perplexity: f64) -> Result<Array2<f64>> {
    let n = rows.nrows();
    let max_perplexity = (n - 1) as f64 / 3.0;
    if !(1.0..=max_perplexity).contains(&perplexity) {
        return Err(crate::Error::Perplexity { found: perplexity, max: max_perplexity, n_tokens: n });
    }
    // As scikit-learn's `init="pca"`: scaled to a standard deviation of 1e-4, so that no two groups start far apart.
    let spread = principal.column(0).std(0.0).max(f64::MIN_POSITIVE);
    let start: Vec<f64> = principal.iter().map(|x| 1e-4 * x / spread).collect();
    let rows: Vec<Vec<f64>> = rows.outer_iter().map(|row| row.to_vec()).collect();
    let squared_distance = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let fit = || {
        let mut tsne: bhtsne::tSNE<f64, Vec<f64>> = bhtsne::tSNE::new(&rows);
        tsne.perplexity(perplexity).initial_embedding(start).exact(squared_distance);
        tsne.embedding()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| crate::Error::device("the CPU", "starting a thread for t-SNE", error))?;
    Ok(Array2::from_shape_vec((n, 2), pool.install(fit)).expect("two coordinates for each token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principal_components_have_the_largest_variance() {
        // ±2 along (1, 1, 0) / √2, ±1 along (0, 0, 1).
        let a = 2.0_f64 / 2.0_f64.sqrt();
        let rows = ndarray::arr2(&[[a, a, 5.0], [-a, -a, 5.0], [0.0, 0.0, 6.0], [0.0, 0.0, 4.0]]);
        let (places, variance) = principal_components(rows);
        let expected = ndarray::arr2(&[[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]);
        assert!((&places - &expected).iter().all(|x| x.abs() < 1e-12), "{places}");
        assert!((variance[0] - 0.8).abs() < 1e-12 && (variance[1] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn labels_do_not_overlap() {
        let places = ndarray::arr2(&[[0.0, 0.0], [0.01, 0.0], [0.01, 1.0], [1.0, 0.01], [0.5, 0.5]]);
        let map = EmbeddingMap {
            component: Component::Qk,
            method: MapMethod::Pca,
            tokens: vec![1, 2, 3, 4, 5],
            layers: vec![0; 5],
            variance: [0.5, 0.5],
            labels: ["first", "too near", "above", "beside", "between"].map(String::from).to_vec(),
            n_layers: 1,
            without_bias: "",
            places,
        };
        assert_eq!(map.with_room_for_a_label(), [true, false, true, true, true]);
    }

    #[cfg(feature = "tsne")]
    #[test]
    fn t_sne_separates_groups_and_is_deterministic() {
        // Two groups of points, far apart.
        let mut rng = fastrand::Rng::with_seed(1);
        let rows = Array2::from_shape_fn((40, 5), |(row, _)| if row < 20 { 0.0 } else { 50.0 } + rng.f64());
        let (principal, _) = principal_components(rows.clone());
        let places = t_sne(&rows, principal.clone(), 5.0).unwrap();
        assert_eq!(places, t_sne(&rows, principal.clone(), 5.0).unwrap());
        let distance = |a: usize, b: usize| (&places.row(a) - &places.row(b)).mapv(|x| x * x).sum().sqrt();
        let nearest =
            |a: usize| (0..40).filter(|&b| b != a).min_by(|&b, &c| distance(a, b).total_cmp(&distance(a, c))).unwrap();
        assert!((0..40).all(|a| (a < 20) == (nearest(a) < 20)));
        assert!(t_sne(&rows, principal, 20.0).is_err());
    }
}
