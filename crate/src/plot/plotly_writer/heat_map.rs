//! Cells as a heat map.

use ndarray::{Array2, s};
use plotly::common::{ColorBar, ColorScale as PlotlyScale, ColorScalePalette, HoverInfo, Title};
use plotly::{HeatMap, Trace};
use serde::Serialize;

use super::{AxisNames, font};
use crate::plot::canvas::{Axes, Ticks};
use crate::plot::marks::{Cells, ColorRange, Hover, LABEL_SIZE, Precision};
use crate::plot::style::{Color, ColorScale, FigureStyle};
use crate::plot::text::{escape, escape_lines, rounded};

/// One heat map for all blocks: the JSON is smaller than with one for each block, and plotly.rs has at most eight
/// pairs of axes.
pub(super) fn trace(cells: &Cells, axes: &Axes, names: &AxisNames, style: FigureStyle) -> Box<dyn Trace> {
    let z = z(cells);
    if let (Ticks::Categories(columns), Ticks::Categories(rows)) = (&axes.x.ticks, &axes.y.ticks) {
        let [x, y] = [columns, rows].map(|names| names.iter().map(|name| escape(name)).collect::<Vec<String>>());
        finished(HeatMap::new(x, y, z), cells, axes, names, style)
    } else {
        finished(HeatMap::new_z(z), cells, axes, names, style)
    }
}

/// The trace with its colours and hover texts. Shape: `z` as from [`z`].
fn finished<X: Serialize + Clone + 'static>(
    heat_map: Box<HeatMap<X, X, Vec<f32>>>,
    cells: &Cells,
    axes: &Axes,
    names: &AxisNames,
    style: FigureStyle,
) -> Box<dyn Trace> {
    let heat_map = heat_map.color_scale(PlotlyScale::Palette(palette(style.color_scale)));
    let heat_map = match cells.range {
        ColorRange::Ends([low, high]) => heat_map.zmin(low).zmax(high),
        ColorRange::Midpoint(midpoint) => heat_map.zmid(midpoint),
    };
    let heat_map = if let Some(title) = &cells.color_bar {
        let font = || font(LABEL_SIZE, Color::Text, style);
        heat_map.color_bar(ColorBar::new().title(Title::with_text(escape(title)).font(font())).tick_font(font()))
    } else {
        heat_map.show_scale(false)
    };
    let heat_map = if axes.placed { heat_map.x_axis(&names.x).y_axis(&names.y) } else { heat_map };
    let heat_map = if cells.gaps { heat_map.hover_on_gaps(false) } else { heat_map };
    let heat_map = if let Some(texts) = hover_texts(cells) { heat_map.hover_text_matrix(texts) } else { heat_map };
    match &cells.hover {
        Hover::Skip => heat_map.hover_info(HoverInfo::Skip),
        Hover::Texts(_) => heat_map.hover_info(HoverInfo::Text),
        Hover::Template(template, _) => heat_map.hover_template(template),
    }
}

/// The hover text of each cell, if there are any. Shape: → `[row] [column]`.
pub(super) fn hover_texts(cells: &Cells) -> Option<Vec<Vec<String>>> {
    let (Hover::Texts(texts) | Hover::Template(_, texts)) = &cells.hover else { return None };
    let rows = texts.chunks(cells.dim.1.max(1)).map(|row| row.iter().map(|text| escape_lines(text)).collect());
    (!texts.is_empty()).then(|| rows.collect())
}

/// The numbers of the heat map, with NaN between the blocks. Shape: → `[row] [column]`.
pub(super) fn z(cells: &Cells) -> Vec<Vec<f32>> {
    let mut z = Array2::from_elem(cells.dim, f32::NAN);
    for block in &cells.blocks {
        let ((row, column), (rows, columns)) = (block.at, block.values.dim());
        let numbers = block.values.mapv(|value| match cells.precision {
            Precision::Exact => value as f32,
            Precision::Significant => rounded(value) as f32,
            Precision::Decimals => (1000.0 * value).round() as f32 / 1000.0,
        });
        z.slice_mut(s![row..row + rows, column..column + columns]).assign(&numbers);
    }
    z.outer_iter().map(|row| row.to_vec()).collect()
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
    use crate::plot::marks::CellBlock;

    #[test]
    fn blocks_are_one_heat_map_with_gaps() {
        let cells = Cells {
            axes: 0,
            dim: (2, 3),
            blocks: vec![
                CellBlock { at: (0, 0), values: arr2(&[[0.12345], [1.0]]) },
                CellBlock { at: (1, 2), values: arr2(&[[0.5]]) },
            ],
            range: ColorRange::Ends([0.0, 1.0]),
            precision: Precision::Decimals,
            hover: Hover::Texts(["a\nb", "", "", "", "", "<c>"].map(String::from).to_vec()),
            gaps: true,
            color_bar: None,
        };
        let axes = Axes::of_cells((2, 3), Area { x: 0.0, y: 0.0, width: 30.0, height: 20.0 });
        let trace = trace(&cells, &axes, &AxisNames::nth(0), FigureStyle::default());
        assert_eq!(
            serde_json::from_str::<Value>(&trace.to_json()).unwrap(),
            json!({
                "type": "heatmap", "z": [[0.123, null, null], [1.0, null, 0.5]], "zmin": 0.0, "zmax": 1.0,
                "colorscale": "Viridis", "showscale": false, "hoverongaps": false, "hoverinfo": "text",
                "hovertext": [["a<br>b", "", ""], ["", "", "&lt;c&gt;"]]
            })
        );
    }
}
