//! Themes, colour scales and colours of figures.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Colours of background, texts and lines of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Black on white, as in the original notebook.
    #[default]
    Light,
    /// Light grey on near black.
    Dark,
    /// No background, and texts in a grey that can be read on white (contrast 4.4) and on JupyterLab's dark pages (4.3):
    /// for a notebook that is read in both.
    Transparent,
}

/// The theme of figures that have none of their own, as an index of [`Theme::ALL`].
static DEFAULT_THEME: AtomicUsize = AtomicUsize::new(0);

impl Theme {
    const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Transparent];

    pub(super) fn set_default(self) {
        DEFAULT_THEME.store(self as usize, Ordering::Relaxed);
    }

    fn of_session() -> Self {
        Self::ALL[DEFAULT_THEME.load(Ordering::Relaxed)]
    }

    pub(super) fn background(self) -> &'static str {
        match self {
            Self::Light => "white",
            Self::Dark => "#111",
            Self::Transparent => "rgba(0,0,0,0)",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Light => "black",
            Self::Dark => "#eee",
            Self::Transparent => "#797979",
        }
    }

    /// Colour of grid lines.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Light => "#ddd",
            Self::Dark => "#333",
            Self::Transparent => "rgba(128,128,128,0.3)",
        }
    }

    /// Colour of captions and axis lines.
    pub(super) fn faint(self) -> &'static str {
        match self {
            Self::Light => "#555",
            Self::Dark => "#aaa",
            Self::Transparent => "#797979",
        }
    }

    /// Colour behind a text that lines may cross.
    pub(super) fn box_background(self) -> &'static str {
        match self {
            Self::Transparent => "rgba(128,128,128,0.15)",
            theme => theme.background(),
        }
    }

    /// Colour of cells without a token: near the background, and on no colour scale of tokens.
    pub(super) fn no_token(self) -> &'static str {
        match self {
            Self::Light => "#f2f2f2",
            Self::Dark => "#222222",
            Self::Transparent => "rgba(128,128,128,0.15)",
        }
    }
}

/// How the cells of a head's tokens are coloured. Cells without a token, those above the diagonal, have a light colour of
/// their own in both looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// A colour for each token, the same one in all panels of a figure: the most different colours for the most frequent
    /// tokens. Up to 20 tokens have colours of a palette, more of them are spread over the whole colour scale. A colour
    /// scale that was chosen ([`Figure::with_color_scale`](crate::Figure::with_color_scale)) takes the place of the
    /// palette. A legend lists the tokens.
    #[default]
    Tokens,
    /// As in the original notebook: each panel numbers its tokens in the order of their first appearance, and the numbers
    /// are colours on the viridis scale, whose middle is 0.5. Only the upper half of the scale is used, and
    /// neighbouring numbers are hardly different.
    Original,
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

/// Colours that are different from each other, from white and from black, with and without red-green colour blindness. The
/// first seven are those of Okabe and Ito (2008); each of the others is, in CIELAB, the farthest from all before it, also
/// after the simulation of protanopia and deuteranopia by Machado et al. (2009).
const PALETTE: &str = "0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442 771100 0055dd 77ee99 553355 dd0044 \
                       003388 8888ff ccaa55 00ddaa aaddff 336633 ff5577 3355bb";

/// The colours of tokens where there are few, the most different ones first.
pub(super) fn palette() -> Vec<[u8; 3]> {
    PALETTE.split_whitespace().map(rgb).collect()
}

const VIRIDIS: &str = "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b \
                       addc30 d8e219 fde725";
const CIVIDIS: &str = "00204c 002a66 00346e 273f6c 3c4a6b 4c556b 5b5f6d 686a70 757575 838178 928c78 a19876 b0a572 c0b16d \
                       d1bf66 e1cc5c f3db4f ffe945";

impl ColorScale {
    /// The stops that plotly.js interpolates between: position on the scale from 0 to 1, and red, green, blue.
    fn stops(self) -> Vec<Stop> {
        let evenly = |colors: &str| evenly(&colors.split_whitespace().map(rgb).collect::<Vec<_>>());
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

    /// The part of the scale for tokens: without what is like the colour of cells without a token.
    pub(super) fn token_range(self, theme: Theme) -> [f64; 2] {
        match (self, theme) {
            (Self::Greys, Theme::Light) => [0.0, 0.78],
            (Self::Greys, Theme::Dark) => [0.4, 1.0],
            (Self::Greys, Theme::Transparent) => [0.3, 0.75],
            (Self::Cividis, Theme::Light) => [0.06, 1.0],
            (Self::Viridis | Self::Cividis, Theme::Dark | Theme::Transparent) => [0.12, 1.0],
            _ => [0.0, 1.0],
        }
    }

    /// Red, green and blue at a position on the scale, from 0 to 1; NaN counts as 0.
    pub(super) fn colors(self) -> impl Fn(f64) -> [u8; 3] {
        gradient(self.stops())
    }
}

/// A position on a scale from 0 to 1, and red, green, blue.
type Stop = (f64, [u8; 3]);

/// Colours at equal distances on a scale.
pub(super) fn evenly(colors: &[[u8; 3]]) -> Vec<Stop> {
    let last = colors.len().saturating_sub(1).max(1) as f64;
    colors.iter().enumerate().map(|(index, &color)| (index as f64 / last, color)).collect()
}

/// Red, green and blue between these stops, of which there are at least two; beyond the ends, and for NaN at the first one,
/// those of an end.
pub(super) fn gradient(stops: Vec<Stop>) -> impl Fn(f64) -> [u8; 3] {
    move |share: f64| {
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        let above = stops.iter().position(|&(at, _)| at >= share).unwrap_or(stops.len() - 1).max(1);
        let ((from_at, from), (to_at, to)) = (stops[above - 1], stops[above]);
        let part = (share - from_at) / (to_at - from_at);
        let between = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
        [0, 1, 2].map(|channel| between(from[channel], to[channel]))
    }
}

/// Red, green and blue of six hexadecimal digits.
fn rgb(hex: &str) -> [u8; 3] {
    [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("six hexadecimal digits"))
}

/// What a user can choose about a figure, apart from its content.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FigureStyle {
    /// `None` for the session's.
    pub(crate) theme: Option<Theme>,
    /// `None` for the look's own colours.
    pub(crate) color_scale: Option<ColorScale>,
    pub(crate) look: Look,
    /// Width and height in pixels; `None` for those that the content needs.
    pub(crate) size: Option<[usize; 2]>,
}

impl FigureStyle {
    pub(crate) fn theme(self) -> Theme {
        self.theme.unwrap_or_else(Theme::of_session)
    }

    pub(super) fn scale(self) -> ColorScale {
        self.color_scale.unwrap_or_default()
    }
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
    /// A position on the colour scale, from 0 to 1.
    Scale(f64),
    /// Red, green, blue.
    Rgb([u8; 3]),
}

impl Color {
    /// Colour of one of `n_layers` layers. The ends of the scale are left out: one of them is hard to see on white, the
    /// other on black.
    pub(crate) fn of_layer(layer: usize, n_layers: usize) -> Self {
        let step = layer as f64 / n_layers.saturating_sub(1).max(1) as f64;
        Self::Scale(0.06 + 0.82 * step)
    }

    /// Colour of one of `n` series that have no order: of the palette, those that can be seen as a thin line on white and on
    /// black, and with more series the scale without its ends.
    pub(crate) fn of_series(index: usize, n: usize) -> Self {
        let is_seen = |color: &[u8; 3]| (0.085..0.6).contains(&luminance(*color));
        let colors: Vec<[u8; 3]> = palette().into_iter().filter(is_seen).collect();
        if n <= colors.len() { Self::Rgb(colors[index]) } else { Self::of_layer(index, n) }
    }

    /// The colour as CSS writes it, which plotly and SVG both read.
    pub(super) fn css(self, style: FigureStyle) -> Cow<'static, str> {
        match self {
            Self::Text => style.theme().text().into(),
            Self::Faint => style.theme().faint().into(),
            Self::Black => "black".into(),
            Self::White => "white".into(),
            Self::Scale(share) => hex(style.scale().colors()(share)).into(),
            Self::Rgb(rgb) => hex(rgb).into(),
        }
    }

    /// Black or white, whichever has more contrast with a background of this red, green and blue: at least 4.58.
    pub(super) fn readable_on(background: [u8; 3]) -> Self {
        let luminance = luminance(background);
        if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) { Self::Black } else { Self::White }
    }
}

/// Relative luminance of WCAG 2, from 0 for black to 1 for white.
fn luminance(rgb: [u8; 3]) -> f64 {
    let [red, green, blue] = rgb.map(|channel| {
        let channel = f64::from(channel) / 255.0;
        if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// `#rrggbb`.
pub(super) fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::{Color, ColorScale, FigureStyle, Theme, luminance, palette};

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
        let (theme, color_scale) = (Some(Theme::Dark), Some(ColorScale::Greys));
        let style = FigureStyle { theme, color_scale, ..FigureStyle::default() };
        let css = [Color::Text, Color::Faint, Color::White, Color::Scale(1.0)].map(|color| color.css(style));
        assert_eq!(css, ["#eee", "#aaa", "white", "#ffffff"]);
        assert_eq!([[250, 230, 40], [70, 0, 80]].map(Color::readable_on), [Color::Black, Color::White]);
    }

    #[test]
    fn few_series_have_colors_of_the_palette_and_many_those_of_the_scale() {
        let colors: Vec<Color> = (0..14).map(|index| Color::of_series(index, 14)).collect();
        assert_eq!(colors[0], Color::Rgb(palette()[0]));
        let distinct = colors.iter().enumerate().all(|(index, color)| !colors[..index].contains(color));
        assert!(distinct && colors.iter().all(|color| matches!(color, Color::Rgb(_))), "{colors:?}");
        assert_eq!(Color::of_series(3, 15), Color::of_layer(3, 15));
    }

    #[test]
    fn text_on_every_color_has_a_contrast_of_at_least_4_5() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let background: [u8; 3] = std::array::from_fn(|_| rng.u8(..));
            let text = if Color::readable_on(background) == Color::Black { 0.0 } else { 1.0 };
            let luminance = luminance(background);
            let contrast = (f64::max(text, luminance) + 0.05) / (f64::min(text, luminance) + 0.05);
            assert!(contrast >= 4.5, "{background:?}: {contrast}");
        }
    }

    /// The colours of cells without a token, on white and on black where they let the background through.
    #[test]
    fn no_token_has_a_color_outside_of_every_scale() {
        let of_theme = |theme| match theme {
            Theme::Light => vec![[0xf2; 3]],
            Theme::Dark => vec![[0x22; 3]],
            Theme::Transparent => vec![[0xec; 3], [0x22; 3]],
        };
        for theme in Theme::ALL {
            let mut colors = palette();
            for scale in [ColorScale::Viridis, ColorScale::Cividis, ColorScale::Greys, ColorScale::RdBu] {
                let [low, high] = scale.token_range(theme);
                colors.extend((0..=100).map(|step| scale.colors()(low + (high - low) * f64::from(step) / 100.0)));
            }
            for no_token in of_theme(theme) {
                for color in &colors {
                    let distance = color.iter().zip(no_token).map(|(a, b)| f64::from(*a) - f64::from(b));
                    let distance = distance.map(|difference| difference * difference).sum::<f64>().sqrt();
                    assert!(distance > 45.0, "{theme:?}: {color:?} is {distance} from {no_token:?}");
                }
            }
        }
    }
}
