//! Themes, colour scales and colours of figures.

use std::borrow::Cow;

/// Colours of background, texts and lines of a figure.
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

    /// Colour of grid lines.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Light => "#ddd",
            Self::Dark => "#333",
        }
    }

    /// Colour of captions and axis lines.
    pub(super) fn faint(self) -> &'static str {
        match self {
            Self::Light => "#555",
            Self::Dark => "#aaa",
        }
    }
}

/// Colour scale of the cells, named as in plotly.js.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorScale {
    /// Dark violet, green, yellow: as in the original notebook.
    #[default]
    Viridis,
    /// Dark blue, grey, yellow: looks the same with and without red-green colour blindness.
    Cividis,
    /// Black to white, for print.
    Greys,
    /// Blue, grey, red: for values on either side of a midpoint.
    RdBu,
}

const VIRIDIS: &str = "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b \
                       addc30 d8e219 fde725";
const CIVIDIS: &str = "00204c 002a66 00346e 273f6c 3c4a6b 4c556b 5b5f6d 686a70 757575 838178 928c78 a19876 b0a572 c0b16d \
                       d1bf66 e1cc5c f3db4f ffe945";

impl ColorScale {
    /// The stops that plotly.js interpolates between: position on the scale from 0 to 1, and red, green, blue.
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

    /// Red, green and blue at a position on the scale, from 0 to 1; NaN counts as 0.
    pub(super) fn colors(self) -> impl Fn(f64) -> [u8; 3] {
        let stops = self.stops();
        move |share: f64| {
            let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            let above = stops.iter().position(|&(at, _)| at >= share).unwrap_or(stops.len() - 1).max(1);
            let ((from_at, from), (to_at, to)) = (stops[above - 1], stops[above]);
            let part = (share - from_at) / (to_at - from_at);
            let between = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
            [0, 1, 2].map(|channel| between(from[channel], to[channel]))
        }
    }
}

/// Red, green and blue of six hexadecimal digits.
fn rgb(hex: &str) -> [u8; 3] {
    [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("six hexadecimal digits"))
}

/// Theme and colour scale of a figure. They change the colours of its marks, never the marks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FigureStyle {
    pub(crate) theme: Theme,
    pub(crate) color_scale: ColorScale,
}

/// Colour of a text, a line or a marker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Color {
    /// The theme's colour of text.
    Text,
    /// The theme's colour of captions.
    Faint,
    /// For text on light cells.
    Black,
    /// For text on dark cells.
    White,
    /// White with a dark edge: for text on cells of any colour.
    OnCells,
    /// A position on the colour scale, from 0 to 1.
    Scale(f64),
}

impl Color {
    /// Colour of one of `n_layers` layers. The ends of the scale are left out: one of them is hard to see on white, the
    /// other on black.
    pub(crate) fn of_layer(layer: usize, n_layers: usize) -> Self {
        let step = layer as f64 / n_layers.saturating_sub(1).max(1) as f64;
        Self::Scale(0.06 + 0.82 * step)
    }

    /// The colour as CSS writes it, which plotly and SVG both read.
    pub(super) fn css(self, style: FigureStyle) -> Cow<'static, str> {
        match self {
            Self::Text => style.theme.text().into(),
            Self::Faint => style.theme.faint().into(),
            Self::Black => "black".into(),
            Self::White | Self::OnCells => "white".into(),
            Self::Scale(share) => hex(style.color_scale.colors()(share)).into(),
        }
    }

    /// Black or white, whichever is readable on a background of this red, green and blue.
    pub(super) fn readable_on(background: [u8; 3]) -> Self {
        let [red, green, blue] = background.map(f64::from);
        // Luma of ITU-R BT.601.
        if 0.299 * red + 0.587 * green + 0.114 * blue > 140.0 { Self::Black } else { Self::White }
    }
}

/// `#rrggbb`.
pub(super) fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::{Color, ColorScale, FigureStyle, Theme};

    #[test]
    fn colors_are_interpolated_between_the_stops() {
        let viridis = ColorScale::Viridis.colors();
        assert_eq!((viridis(0.0), viridis(1.0)), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]));
        assert_eq!(viridis(0.5), [0x21, 0x91, 0x8c]);
        assert_eq!(viridis(0.5 / 16.0), [0x46, 0x0d, 0x5f]);
        assert_eq!((viridis(-3.0), viridis(f64::NAN), viridis(7.0)), (viridis(0.0), viridis(0.0), viridis(1.0)));
        assert_eq!(ColorScale::RdBu.colors()(0.85), [204, 78, 59]);
        assert_eq!((ColorScale::Greys.colors()(0.5), ColorScale::Cividis.colors()(0.0)), ([128; 3], [0, 32, 76]));
    }

    #[test]
    fn colors_follow_theme_and_scale() {
        let style = FigureStyle { theme: Theme::Dark, color_scale: ColorScale::Greys };
        let css = [Color::Text, Color::Faint, Color::White, Color::Scale(1.0)].map(|color| color.css(style));
        assert_eq!(css, ["#eee", "#aaa", "white", "#ffffff"]);
        assert_eq!([[250, 230, 40], [70, 0, 80]].map(Color::readable_on), [Color::Black, Color::White]);
    }
}
