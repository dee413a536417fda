//! How figures look: themes and colour scales. They change nothing of what a figure says.

use plotly::common::ColorScalePalette;

/// What surrounds the cells of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Black on white, as in the original notebook.
    #[default]
    Light,
    /// Light grey on near black.
    Dark,
}

impl Theme {
    pub(super) fn background(self) -> &'static str {
        match self {
            Self::Light => "white",
            Self::Dark => "#111",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Light => "black",
            Self::Dark => "#eee",
        }
    }

    /// For lines that guide the eye.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Light => "#ddd",
            Self::Dark => "#333",
        }
    }

    /// For what is said in passing.
    pub(super) fn faint(self) -> &'static str {
        match self {
            Self::Light => "#555",
            Self::Dark => "#aaa",
        }
    }
}

/// The colours of the cells: scales of plotly.js, by their names there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorScale {
    /// Dark violet, green, yellow: as in the original notebook.
    #[default]
    Viridis,
    /// Dark blue, grey, yellow: looks the same to people with and without red-green colour blindness.
    Cividis,
    /// Black to white, for print.
    Greys,
    /// Blue, grey, red: what lies on either side of the middle.
    RdBu,
}

const VIRIDIS: &str = "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725";
const CIVIDIS: &str = "00204c 002a66 00346e 273f6c 3c4a6b 4c556b 5b5f6d 686a70 757575 838178 928c78 a19876 b0a572 c0b16d \
                       d1bf66 e1cc5c f3db4f ffe945";

impl ColorScale {
    /// plotly's name for it.
    pub(super) fn palette(self) -> ColorScalePalette {
        match self {
            Self::Viridis => ColorScalePalette::Viridis,
            Self::Cividis => ColorScalePalette::Cividis,
            Self::Greys => ColorScalePalette::Greys,
            Self::RdBu => ColorScalePalette::RdBu,
        }
    }

    /// plotly.js' stops: shares of the scale, with red, green and blue.
    fn stops(self) -> Vec<(f64, [u8; 3])> {
        let evenly = |colors: &str| {
            let colors: Vec<[u8; 3]> = colors.split_whitespace().map(rgb).collect();
            let last = (colors.len() - 1) as f64;
            colors.into_iter().enumerate().map(|(index, color)| (index as f64 / last, color)).collect()
        };
        match self {
            Self::Viridis => evenly(VIRIDIS),
            Self::Cividis => evenly(CIVIDIS),
            Self::Greys => evenly("000000 ffffff"),
            Self::RdBu => vec![
                (0.0, [5, 10, 172]),
                (0.35, [106, 137, 247]),
                (0.5, [190, 190, 190]),
                (0.6, [220, 170, 132]),
                (0.7, [230, 145, 90]),
                (1.0, [178, 10, 28]),
            ],
        }
    }

    /// The colour at a share of the scale, from 0 to 1, as red, green and blue.
    pub(super) fn colors(self) -> impl Fn(f64) -> [u8; 3] {
        let stops = self.stops();
        move |share| {
            let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            let above = stops.iter().position(|&(at, _)| at >= share).unwrap_or(stops.len() - 1).max(1);
            let ((from_at, from), (to_at, to)) = (stops[above - 1], stops[above]);
            let part = (share - from_at) / (to_at - from_at);
            let between = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
            [0, 1, 2].map(|channel| between(from[channel], to[channel]))
        }
    }
}

/// A colour written as six hexadecimal digits.
fn rgb(hex: &str) -> [u8; 3] {
    [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("six hexadecimal digits"))
}

/// The look of a figure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub(crate) theme: Theme,
    pub(crate) color_scale: ColorScale,
}

#[cfg(test)]
mod tests {
    use super::ColorScale;

    #[test]
    fn stops_are_met_and_between_them_lies_the_mean() {
        let viridis = ColorScale::Viridis.colors();
        assert_eq!((viridis(0.0), viridis(1.0)), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]));
        assert_eq!(viridis(0.5), [0x21, 0x91, 0x8c]);
        assert_eq!(viridis(0.5 / 16.0), [0x46, 0x0d, 0x5f]);
        assert_eq!((viridis(-3.0), viridis(f64::NAN), viridis(7.0)), (viridis(0.0), viridis(0.0), viridis(1.0)));
        assert_eq!(ColorScale::RdBu.colors()(0.85), [204, 78, 59]);
        assert_eq!((ColorScale::Greys.colors()(0.5), ColorScale::Cividis.colors()(0.0)), ([128; 3], [0, 32, 76]));
    }
}
