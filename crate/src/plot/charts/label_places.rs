//! Which labels of points there is room for.

use crate::plot::fit;
use crate::plot::marks::TOKEN_SIZE;

/// Half of the height of a label in pixels.
const HALF_HEIGHT: f64 = 0.7 * TOKEN_SIZE as f64;
/// Width of a character in font sizes.
const CHARACTER: f64 = 0.6;

/// The labels above these points, without those that would cover an earlier one. Points are in pixels; `taken` are the
/// middles of labels that are drawn already and half of their widths, to which the new ones are added.
/// Shape: `points [n, 2]`, `labels [n]` → `[n]`.
pub(super) fn with_room(
    points: impl Iterator<Item = [f64; 2]>,
    labels: &[String],
    taken: &mut Vec<([f64; 2], f64)>,
) -> Vec<String> {
    let place = |(at, label): ([f64; 2], &String)| {
        let half = fit::width(label) as f64 * CHARACTER * TOKEN_SIZE as f64 / 2.0;
        let is_clear = |&(other, other_half): &([f64; 2], f64)| {
            (at[0] - other[0]).abs() >= half + other_half || (at[1] - other[1]).abs() >= 2.0 * HALF_HEIGHT
        };
        if label.is_empty() || !at.iter().all(|x| x.is_finite()) || !taken.iter().all(is_clear) {
            return String::new();
        }
        taken.push((at, half));
        label.clone()
    };
    points.zip(labels).map(place).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_label_that_would_cover_another_is_left_out() {
        let labels = ["first", "second", "third", "", "fifth"].map(String::from);
        let points = [[50.0, 50.0], [60.0, 45.0], [60.0, 80.0], [200.0, 50.0], [f64::NAN, 50.0]];
        let mut taken = Vec::new();
        assert_eq!(super::with_room(points.into_iter(), &labels, &mut taken), ["first", "", "third", "", ""]);
        assert_eq!(super::with_room([[50.0, 52.0]].into_iter(), &labels, &mut taken), [""]);
    }
}
