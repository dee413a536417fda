//! Viridis, as plotly.js draws it.

/// plotly.js' stops, at equal distances.
const VIRIDIS: [[u8; 3]; 17] = [
    [0x44, 0x01, 0x54],
    [0x48, 0x18, 0x6a],
    [0x47, 0x2d, 0x7b],
    [0x42, 0x40, 0x86],
    [0x3b, 0x52, 0x8b],
    [0x33, 0x63, 0x8d],
    [0x2c, 0x72, 0x8e],
    [0x26, 0x82, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x1f, 0xa0, 0x88],
    [0x28, 0xae, 0x80],
    [0x3f, 0xbc, 0x73],
    [0x5e, 0xc9, 0x62],
    [0x84, 0xd4, 0x4b],
    [0xad, 0xdc, 0x30],
    [0xd8, 0xe2, 0x19],
    [0xfd, 0xe7, 0x25],
];

/// The colour at a share of the scale, from 0 to 1, as red, green and blue.
pub(super) fn viridis(share: f64) -> [u8; 3] {
    let last = VIRIDIS.len() - 1;
    let at = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) * last as f64 };
    let below = (at as usize).min(last - 1);
    let between = |from: u8, to: u8| {
        let (from, to) = (f64::from(from), f64::from(to));
        (from + (at - below as f64) * (to - from)).round() as u8
    };
    let (from, to) = (VIRIDIS[below], VIRIDIS[below + 1]);
    [0, 1, 2].map(|channel| between(from[channel], to[channel]))
}

#[cfg(test)]
mod tests {
    use super::viridis;

    #[test]
    fn stops_are_met_and_between_them_lies_the_mean() {
        assert_eq!((viridis(0.0), viridis(1.0)), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]));
        assert_eq!(viridis(0.5), [0x21, 0x91, 0x8c]);
        assert_eq!(viridis(0.5 / 16.0), [0x46, 0x0d, 0x5f]);
        assert_eq!((viridis(-3.0), viridis(f64::NAN), viridis(7.0)), (viridis(0.0), viridis(0.0), viridis(1.0)));
    }
}
