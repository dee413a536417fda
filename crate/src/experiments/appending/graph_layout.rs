//! Places for the nodes of a graph: in layers, so that most arrows point downwards.

use std::collections::BTreeSet;

use rust_sugiyama::configure::Config;

/// Between two nodes and between two layers.
const SPACING: f64 = 10.0;

/// A place for each of `n` nodes, as [x, y]; the connected parts of the graph lie side by side. How often an arrow comes, and arrows
/// from a node to itself, do not matter.
pub(super) fn layered(n: usize, edges: impl Iterator<Item = (usize, usize)>) -> Vec<[f64; 2]> {
    // Of two arrows between the same two nodes, one says that they belong together.
    let edges: BTreeSet<(u32, u32)> =
        edges.filter(|(from, to)| from != to).map(|(from, to)| (from.min(to) as u32, from.max(to) as u32)).collect();
    let nodes: Vec<(u32, (f64, f64))> = (0..n as u32).map(|node| (node, (SPACING, SPACING))).collect();
    let config = Config { vertex_spacing: SPACING, ..Config::default() };
    let mut places = vec![[0.0; 2]; n];
    let mut left = 0.0;
    for (part, ..) in rust_sugiyama::from_vertices_and_edges(&nodes, &edges.into_iter().collect::<Vec<_>>(), &config) {
        let first = part.iter().map(|(_, (x, _))| *x).fold(f64::INFINITY, f64::min);
        let mut right = left;
        for (node, (x, y)) in part {
            places[node] = [left + x - first, y];
            right = f64::max(right, places[node][0]);
        }
        left = right + 2.0 * SPACING;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::layered;

    #[test]
    fn every_node_has_a_place_of_its_own() {
        let mut random = fastrand::Rng::with_seed(1);
        for n in (0..20).chain([40]) {
            let edges: Vec<(usize, usize)> = (0..2 * n).map(|_| (random.usize(..n), random.usize(..n))).collect();
            let places = layered(n, edges.iter().copied());
            assert_eq!(places.len(), n);
            for (index, place) in places.iter().enumerate() {
                assert!(place.iter().all(|x| x.is_finite()));
                assert!(
                    places[..index].iter().all(|other| (other[0] - place[0]).abs() + (other[1] - place[1]).abs() > 1.0)
                );
            }
            assert_eq!(places, layered(n, edges.into_iter()), "the same graph has the same places");
        }
    }
}
