//! Layered layout of a graph by Sugiyama's method: connected nodes in neighbouring layers, with few crossing edges.

use std::collections::BTreeSet;

use rust_sugiyama::configure::Config;

/// Distance between two nodes, and between two layers.
const SPACING: f64 = 10.0;

/// The position [x, y] of each of `n` nodes, with the connected components side by side. Repeated edges count once;
/// edges from a node to itself are ignored. Shape: `[edge, 2]` → `[n, 2]`.
pub(super) fn layered(n: usize, edges: impl Iterator<Item = (usize, usize)>) -> Vec<[f64; 2]> {
    // One edge for each pair of connected nodes, in one direction, because the method needs a graph without cycles.
    let edges: BTreeSet<(u32, u32)> =
        edges.filter(|(from, to)| from != to).map(|(from, to)| (from.min(to) as u32, from.max(to) as u32)).collect();
    let nodes: Vec<(u32, (f64, f64))> = (0..n as u32).map(|node| (node, (SPACING, SPACING))).collect();
    let config = Config { vertex_spacing: SPACING, ..Config::default() };
    let mut positions = vec![[0.0; 2]; n];
    let mut left = 0.0;
    for (component, ..) in
        rust_sugiyama::from_vertices_and_edges(&nodes, &edges.into_iter().collect::<Vec<_>>(), &config)
    {
        let first = component.iter().map(|(_, (x, _))| *x).fold(f64::INFINITY, f64::min);
        let mut right = left;
        for (node, (x, y)) in component {
            positions[node] = [left + x - first, y];
            right = f64::max(right, positions[node][0]);
        }
        left = right + 2.0 * SPACING;
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::layered;

    #[test]
    fn every_node_has_a_position_of_its_own() {
        let mut rng = fastrand::Rng::with_seed(1);
        for n in (0..20).chain([40]) {
            let edges: Vec<(usize, usize)> = (0..2 * n).map(|_| (rng.usize(..n), rng.usize(..n))).collect();
            let positions = layered(n, edges.iter().copied());
            assert_eq!(positions.len(), n);
            for (index, position) in positions.iter().enumerate() {
                assert!(position.iter().all(|x| x.is_finite()));
                let apart = |other: &[f64; 2]| (other[0] - position[0]).abs() + (other[1] - position[1]).abs() > 1.0;
                assert!(positions[..index].iter().all(apart));
            }
            assert_eq!(positions, layered(n, edges.into_iter()), "the same graph has the same layout");
        }
    }
}
