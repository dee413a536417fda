//! Cells as a heat map, and the texts in them.

use ndarray::Array2;
use plotly::common::{ColorBar, ColorScale as PlotlyScale, ColorScaleElement, ColorScalePalette, HoverInfo, Title};
use plotly::{HeatMap, Trace};
use serde::Serialize;

use super::cell_labels::{self, Labelled};
use super::{AxisNames, font};
use crate::plot::canvas::{Axes, Ticks};
use crate::plot::marks::{Cells, ColorRange, Hover, LABEL_SIZE, Paint};
use crate::plot::style::{Color, ColorScale, FigureStyle, evenly, hex};
use crate::plot::text::{escape, escape_lines, rounded};

/// One heat map for all blocks: the JSON is smaller than with one for each block, and plotly.rs has at most eight
/// pairs of axes. If there are texts in the cells, a second one has those in black.
pub(super) fn traces(cells: &Cells, axes: &Axes, names: &AxisNames, style: FigureStyle) -> Vec<Box<dyn Trace>> {
    match &cells.paint {
        Paint::Scale(_) | Paint::Shades(_) => of_values(numbers(cells), 0.0, cells, axes, names, style),
        Paint::Indices(_) => of_values(indices(cells), Some(0), cells, axes, names, style),
    }
}

fn of_values<Z: Serialize + Clone + 'static>(
    z: Vec<Vec<Z>>,
    zero: Z,
    cells: &Cells,
    axes: &Axes,
    names: &AxisNames,
    style: FigureStyle,
) -> Vec<Box<dyn Trace>> {
    if let (Ticks::Categories(columns), Ticks::Categories(rows)) = (&axes.x.ticks, &axes.y.ticks) {
        let [x, y] = [columns, rows].map(|names| names.iter().map(|name| escape(name)).collect::<Vec<String>>());
        finished(|z| HeatMap::new(x.clone(), y.clone(), z), z, zero, cells, axes, names, style)
    } else {
        finished(HeatMap::new_z, z, zero, cells, axes, names, style)
    }
}

/// The traces with their colours and texts. `heat_map` makes a heat map of values. Shape: `z` `[row] [column]`.
fn finished<X: Serialize + Clone + 'static, Z: Serialize + Clone + 'static>(
    heat_map: impl Fn(Vec<Vec<Z>>) -> Box<HeatMap<X, X, Vec<Z>>>,
    z: Vec<Vec<Z>>,
    zero: Z,
    cells: &Cells,
    axes: &Axes,
    names: &AxisNames,
    style: FigureStyle,
) -> Vec<Box<dyn Trace>> {
    let placed = |heat_map: Box<HeatMap<X, X, Vec<Z>>>| {
        if axes.placed { heat_map.x_axis(&names.x).y_axis(&names.y) } else { heat_map }
    };
    let main = heat_map(z).color_scale(color_scale(&cells.paint, style)).hover_on_gaps(false);
    let main = match &cells.paint {
        Paint::Scale(ColorRange::Ends([low, high])) => main.zmin(*low).zmax(*high),
        Paint::Scale(ColorRange::Midpoint(midpoint)) => main.zmid(*midpoint),
        Paint::Indices(colors) => main.zmin(-0.5).zmax(colors.len() as f64 + 0.5),
        Paint::Shades(_) => main.zmin(0.0).zmax(1.0),
    };
    let main = if let Some(title) = &cells.color_bar {
        let font = || font(LABEL_SIZE, Color::Text, style);
        main.color_bar(ColorBar::new().title(Title::with_text(escape(title)).font(font())).tick_font(font()))
    } else {
        main.show_scale(false)
    };
    let main = placed(main);
    let main = if let Some(texts) = hover_texts(cells) { main.hover_text_matrix(texts) } else { main };
    let main = match &cells.hover {
        Hover::Skip => main.hover_info(HoverInfo::Skip),
        Hover::Texts(_) => main.hover_info(HoverInfo::Text),
        Hover::Template(template, _) => main.hover_template(template),
    };
    let Some([white, black]) = cell_labels::matrices(cells, style) else { return vec![main] };
    // Only its texts are seen. (plotly leaves out a heat map without numbers.)
    let zeros = vec![vec![zero; cells.dim.1]; cells.dim.0];
    let over = placed(heat_map(zeros).show_scale(false).opacity(0.0).hover_info(HoverInfo::Skip));
    vec![
        Box::new(Labelled::new(*main.text_matrix(white), Color::White.css(style))),
        Box::new(Labelled::new(*over.text_matrix(black), Color::Black.css(style))),
    ]
}

fn color_scale(paint: &Paint, style: FigureStyle) -> PlotlyScale {
    let colors = match paint {
        Paint::Scale(_) => return PlotlyScale::Palette(palette(style.scale())),
        Paint::Shades(colors) => {
            let stop = |(at, color)| ColorScaleElement(rounded(at), hex(color));
            return PlotlyScale::Vector(evenly(colors).into_iter().map(stop).collect());
        }
        Paint::Indices(colors) => colors,
    };
    let colors: Vec<String> =
        std::iter::once(style.theme().no_token().to_owned()).chain(colors.iter().map(|&rgb| hex(rgb))).collect();
    let n = colors.len() as f64;
    let step = |(index, color): (usize, String)| {
        [index, index + 1].map(|end| ColorScaleElement(rounded(end as f64 / n), color.clone()))
    };
    let mut steps: Vec<ColorScaleElement> = colors.into_iter().enumerate().flat_map(step).collect();
    if let Some(last) = steps.last_mut() {
        last.0 = 1.0;
    }
    PlotlyScale::Vector(steps)
}

/// The hover text of each cell, if there are any. Shape: → `[row] [column]`.
pub(super) fn hover_texts(cells: &Cells) -> Option<Vec<Vec<String>>> {
    let (Hover::Texts(texts) | Hover::Template(_, texts)) = &cells.hover else { return None };
    let rows = texts.chunks(cells.dim.1.max(1)).map(|row| row.iter().map(|text| escape_lines(text)).collect());
    (!texts.is_empty()).then(|| rows.collect())
}

/// The numbers of the heat map. Shape: → `[row] [column]`.
fn numbers(cells: &Cells) -> Vec<Vec<f32>> {
    rows(&cells.values().mapv(|value| cells.precision.round(value) as f32))
}

/// The indices of the colours. Shape: → `[row] [column]`.
fn indices(cells: &Cells) -> Vec<Vec<Option<u16>>> {
    rows(&cells.values().mapv(|value| value.is_finite().then_some(value as u16)))
}

fn rows<Z: Clone>(values: &Array2<Z>) -> Vec<Vec<Z>> {
    values.outer_iter().map(|row| row.to_vec()).collect()
}

/// The values of the heat map as JSON.
pub(super) fn z(cells: &Cells) -> serde_json::Value {
    match &cells.paint {
        Paint::Scale(_) => serde_json::json!(numbers(cells)),
        // As `f64`: a `Value` would write an `f32` with the digits of one.
        Paint::Shades(_) => serde_json::json!(rows(&cells.values().mapv(|value| cells.precision.round(value)))),
        Paint::Indices(_) => serde_json::json!(indices(cells)),
    }
}

fn palette(scale: ColorScale) -> ColorScalePalette {
    match scale {
        ColorScale::Viridis => ColorScalePalette::Viridis,
        ColorScale::Cividis => ColorScalePalette::Cividis,
        ColorScale::Greys => ColorScalePalette::Greys,
        ColorScale::RdBu => ColorScalePalette::RdBu,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;
    use serde_json::{Value, json};

    use super::*;
    use crate::plot::canvas::Area;
    use crate::plot::marks::{CellBlock, CellLabels, Precision};

    #[test]
    fn blocks_are_one_heat_map_with_gaps() {
        let cells = Cells {
            axes: 0,
            dim: (2, 3),
            blocks: vec![
                CellBlock { at: (0, 0), values: arr2(&[[0.12345], [1.0]]) },
                CellBlock { at: (1, 2), values: arr2(&[[0.5]]) },
            ],
            paint: Paint::Scale(ColorRange::Ends([0.0, 1.0])),
            precision: Precision::Significant,
            hover: Hover::Texts(["a\nb", "", "", "", "", "<c>"].map(String::from).to_vec()),
            labels: None,
            color_bar: None,
        };
        let axes = Axes::of_cells((2, 3), Area { x: 0.0, y: 0.0, width: 30.0, height: 20.0 });
        let traces = traces(&cells, &axes, &AxisNames::nth(0), FigureStyle::default());
        assert_eq!(traces.len(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&traces[0].to_json()).unwrap(),
            json!({
                "type": "heatmap", "z": [[0.1235, null, null], [1.0, null, 0.5]], "zmin": 0.0, "zmax": 1.0,
                "colorscale": "Viridis", "showscale": false, "hoverongaps": false, "hoverinfo": "text",
                "hovertext": [["a<br>b", "", ""], ["", "", "&lt;c&gt;"]]
            })
        );
    }

    #[test]
    fn indices_are_steps_of_a_scale_and_texts_are_black_or_white() {
        let cells = Cells {
            axes: 0,
            dim: (1, 3),
            blocks: vec![CellBlock { at: (0, 0), values: arr2(&[[1.0, 2.0, 0.0]]) }],
            paint: Paint::Indices(vec![[0, 0, 0], [255, 255, 0]]),
            precision: Precision::Exact,
            hover: Hover::Skip,
            labels: Some(CellLabels { texts: ["<nl>", "a\n<b>", ""].map(String::from).to_vec(), size: 10 }),
            color_bar: None,
        };
        let axes = Axes::of_cells((1, 3), Area { x: 0.0, y: 0.0, width: 30.0, height: 10.0 });
        let traces = traces(&cells, &axes, &AxisNames::nth(0), FigureStyle::default());
        let [main, over] = [0, 1].map(|index| serde_json::from_str::<Value>(&traces[index].to_json()).unwrap());
        let steps = json!([
            [0.0, "#f2f2f2"],
            [0.3333, "#f2f2f2"],
            [0.3333, "#000000"],
            [0.6667, "#000000"],
            [0.6667, "#ffff00"],
            [1.0, "#ffff00"]
        ]);
        assert_eq!((&main["z"], &main["colorscale"]), (&json!([[1, 2, 0]]), &steps));
        assert_eq!((&main["zmin"], &main["zmax"]), (&json!(-0.5), &json!(2.5)));
        let filler = "\u{200b}".repeat(4) + "<br>" + &"\u{200b}".repeat(4);
        assert_eq!(main["text"], json!([["<nl>", filler, ""]]));
        assert_eq!(over["text"], json!([[filler, "a<br>&lt;b>", ""]]));
        assert_eq!((&main["texttemplate"], &main["textfont"]["color"]), (&json!("%{text}"), &json!("white")));
        assert_eq!((&over["opacity"], &over["textfont"]["color"]), (&json!(0.0), &json!("black")));
    }
}
