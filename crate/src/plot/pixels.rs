//! Static pictures as pixels: the SVG of `svg_writer`, drawn with the fonts of the system.

use std::error::Error as StdError;
use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::{Database, FaceInfo, ID, Style, Weight};
use resvg::usvg::{FontResolver, Options, Tree};

use crate::error::{Error, Result};

/// Pixels of a PNG for each pixel of the figure, in both directions.
const SCALE: f32 = 2.0;
/// A figure that would have more pixels has one for each of its own: 400 MB at most, because figures have at most 10,000
/// pixels in both directions.
const MAX_SCALED_PIXELS: f32 = 64e6;

/// The fonts that are installed. They are looked for once, because there may be thousands, or again if there were none.
///
/// # Errors
/// [`Error::Fonts`] if there are none.
pub(super) fn system_fonts() -> Result<Arc<Database>> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    if let Some(fonts) = FONTS.get() {
        return Ok(fonts.clone());
    }
    let mut fonts = Database::new();
    fonts.load_system_fonts();
    if fonts.is_empty() {
        return Err(Error::Fonts);
    }
    Ok(FONTS.get_or_init(|| Arc::new(fonts)).clone())
}

/// A picture as PNG.
///
/// # Errors
/// That the text is not SVG, or that there is no memory for its pixels.
pub(super) fn png(svg: &str, fonts: Arc<Database>) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
    let font_resolver = FontResolver {
        select_font: Box::new(|font, fonts| {
            // Where none of the families of the picture is installed, the text would be left out.
            FontResolver::default_font_selector()(font, fonts).or_else(|| any_font(fonts))
        }),
        ..FontResolver::default()
    };
    let tree = Tree::from_str(svg, &Options { fontdb: fonts, font_resolver, ..Options::default() })?;
    let size = tree.size();
    let scale = if size.width() * size.height() * SCALE * SCALE > MAX_SCALED_PIXELS { 1.0 } else { SCALE };
    let [width, height] = [size.width(), size.height()].map(|pixels| (pixels * scale).ceil() as u32);
    let mut pixels = Pixmap::new(width, height).ok_or_else(|| format!("no picture has {width} × {height} pixels"))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

/// The font for texts where none of the families that they name is installed: upright, of normal weight, without serifs,
/// as far as there is one.
fn any_font(fonts: &Database) -> Option<ID> {
    let distance = |face: &FaceInfo| {
        let family = face.families.first().map_or("", |(name, _)| name.as_str()).to_owned();
        let without_serifs = family.contains("Sans");
        (face.style != Style::Normal, face.weight != Weight::NORMAL, !without_serifs, family)
    };
    fonts.faces().min_by_key(|face| distance(face)).map(|face| face.id)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::notebook::plot_attns;
    use crate::{Figure, Theme};

    fn pixels(png: &[u8]) -> Pixmap {
        Pixmap::decode_png(png).unwrap()
    }

    /// Red, green and blue of the pixel in the middle of the figure's pixel `(x, y)`.
    fn color(pixels: &Pixmap, [x, y]: [u32; 2]) -> [u8; 3] {
        let pixel = pixels.pixel(2 * x + 1, 2 * y + 1).unwrap();
        [pixel.red(), pixel.green(), pixel.blue()]
    }

    fn svg(content: &str) -> String {
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='100' height='60' viewBox='0 0 100 60' \
             font-family='No Such Family'><rect width='100%' height='100%' fill='#ffffff'/>{content}</svg>"
        )
    }

    /// The number of pixels that are not white.
    fn inked(svg: &str, fonts: Arc<Database>) -> usize {
        pixels(&png(svg, fonts).unwrap()).pixels().iter().filter(|pixel| pixel.red() < 128).count()
    }

    #[test]
    fn shapes_have_their_colors_and_twice_their_size() {
        let picture = png(&svg("<rect x='20' y='10' width='30' height='20' fill='#102030'/>"), system_fonts().unwrap());
        let picture = pixels(&picture.unwrap());
        assert_eq!((picture.width(), picture.height()), (200, 120));
        assert_eq!(color(&picture, [35, 20]), [0x10, 0x20, 0x30]);
        for outside in [[19, 20], [50, 20], [35, 9], [35, 30]] {
            assert_eq!(color(&picture, outside), [255; 3], "{outside:?}");
        }
    }

    #[test]
    fn texts_are_drawn_in_another_font_where_theirs_is_missing() {
        let fonts = system_fonts().unwrap();
        let text = |text: &str| svg(&format!("<text x='10' y='40' font-size='30'>{text}</text>"));
        let [one, three] = ["H", "HHH"].map(|letters| inked(&text(letters), fonts.clone()));
        assert!(one > 100 && three > 2 * one, "{one} {three}");
        assert_eq!(inked(&text(" "), fonts.clone()), 0);
        // The one font of a machine is taken, whatever its style.
        let bold = fonts.faces().find(|face| face.weight == Weight::BOLD).expect("a machine with a bold font");
        let mut single = Database::new();
        single.load_font_source(fonts.face_source(bold.id).unwrap().0);
        assert!(inked(&text("H"), Arc::new(single)) > 100);
        assert_eq!(inked(&text("H"), Arc::new(Database::new())), 0);
    }

    /// More cells than are drawn as rectangles are an image of their own within the SVG.
    #[test]
    fn many_cells_are_drawn_too() {
        let cells = Array2::from_shape_fn((200, 200), |(row, column)| if row > column { 1.0 } else { 0.0 });
        let figure = plot_attns(&cells).with_theme(Theme::Light).unwrap();
        let svg = figure.to_svg().unwrap();
        assert!(svg.contains("<image"));
        let picture = pixels(&png(&svg, system_fonts().unwrap()).unwrap());
        let [width, height] = [picture.width() / 2, picture.height() / 2];
        let [below, above] = [[width / 4, 2 * height / 3], [width / 2, height / 4]].map(|place| color(&picture, place));
        assert_ne!(below, above);
    }

    #[test]
    fn a_figure_without_marks_of_its_own_is_an_error() {
        let plotted = Figure::from(plot_attns(&Array2::<f32>::zeros((2, 2))).to_plot());
        let error = plotted.write_png("never-written.png").unwrap_err().to_string();
        assert!(error.contains("write_png") && error.contains("use write_html"), "{error}");
    }
}
