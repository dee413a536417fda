//! Lines and markers of charts as scatter traces.

use plotly::Scatter;
use plotly::common::{ErrorData, ErrorType, HoverInfo, Line as PlotlyLine, Marker, MarkerSymbol, Mode, Position};

use super::font;
use crate::plot::marks::{LINE_WIDTH, LegendEntry, Line, MARKER_WIDTH, Markers, Strokes, Symbol, TOKEN_SIZE};
use crate::plot::style::{Color, FigureStyle};
use crate::plot::text::{escape, escape_lines, rounded};

/// Width of the markers on a line, in pixels.
const LINE_MARKER_WIDTH: usize = 4;

type Trace = Box<Scatter<f64, f64>>;

/// A line with small markers, at which plotly shows the hover texts.
pub(super) fn line(line: &Line, style: FigureStyle) -> Trace {
    let trace = trace(&line.entry, line.points.iter().copied(), Mode::LinesMarkers);
    let trace =
        trace.marker(marker(&line.entry, LINE_MARKER_WIDTH, style)).line(stroke(&line.entry, LINE_WIDTH, style));
    with_hover_texts(trace, &line.hover)
}

/// All strokes as one line with gaps.
pub(super) fn strokes(strokes: &Strokes, style: FigureStyle) -> Trace {
    let gap = [f64::NAN; 2];
    let points = strokes.strokes.iter().flat_map(|stroke| stroke.iter().copied().chain([gap]));
    let mut trace = trace(&strokes.entry, points, Mode::Lines)
        .line(stroke(&strokes.entry, strokes.width, style))
        .hover_info(HoverInfo::Skip);
    if strokes.opacity < 1.0 {
        trace = trace.opacity(strokes.opacity);
    }
    if let Some(group) = &strokes.group { trace.legend_group(group) } else { trace }
}

/// Markers, with their intervals as error bars.
pub(super) fn markers(markers: &Markers, style: FigureStyle) -> Trace {
    let mode = if markers.labels.is_empty() { Mode::Markers } else { Mode::MarkersText };
    let trace = trace(&markers.entry, markers.points.iter().copied(), mode);
    let mut trace = trace.marker(marker(&markers.entry, MARKER_WIDTH as usize, style));
    if !markers.intervals.is_empty() {
        let bars = || markers.points.iter().zip(&markers.intervals);
        let above = bars().map(|(point, [_, high])| rounded(high - point[1])).collect();
        let below = bars().map(|(point, [low, _])| rounded(point[1] - low)).collect();
        let bars = ErrorData::new(ErrorType::Data).symmetric(false).array(above).array_minus(below);
        trace = trace.error_y(bars.color(markers.entry.color.css(style).into_owned()).thickness(1.0).width(2));
    }
    if !markers.labels.is_empty() {
        let labels = markers.labels.iter().map(|label| escape_lines(label)).collect();
        let font = font(TOKEN_SIZE, Color::Text, style);
        trace = trace.text_array(labels).text_position(Position::TopCenter).text_font(font);
    }
    with_hover_texts(trace, &markers.hover)
}

fn trace(entry: &LegendEntry, points: impl Iterator<Item = [f64; 2]>, mode: Mode) -> Trace {
    let (x, y) = points.map(|[x, y]| (rounded(x), rounded(y))).unzip();
    Scatter::new(x, y).name(escape(&entry.name)).show_legend(!entry.name.is_empty()).mode(mode)
}

fn marker(entry: &LegendEntry, width: usize, style: FigureStyle) -> Marker {
    let symbol = match entry.symbol {
        Symbol::Circle => MarkerSymbol::Circle,
        Symbol::Square => MarkerSymbol::Square,
        Symbol::Diamond => MarkerSymbol::Diamond,
        Symbol::Triangle => MarkerSymbol::TriangleUp,
        Symbol::Cross => MarkerSymbol::Cross,
        Symbol::X => MarkerSymbol::X,
    };
    Marker::new().color(entry.color.css(style).into_owned()).size(width).symbol(symbol)
}

fn stroke(entry: &LegendEntry, width: f64, style: FigureStyle) -> PlotlyLine {
    PlotlyLine::new().color(entry.color.css(style).into_owned()).width(width)
}

/// Without texts, plotly shows the coordinates.
fn with_hover_texts(trace: Trace, texts: &[String]) -> Trace {
    if texts.is_empty() {
        return trace;
    }
    trace.hover_text_array(texts.iter().map(|text| escape_lines(text)).collect()).hover_info(HoverInfo::Text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str) -> LegendEntry {
        LegendEntry { name: name.into(), color: Color::Scale(0.0), symbol: Symbol::Diamond }
    }

    #[test]
    fn intervals_are_error_bars() {
        let markers = super::markers(
            &Markers {
                entry: entry("<a>"),
                points: vec![[1.0, 2.0]],
                intervals: vec![[1.5, 4.0]],
                labels: vec!["b".into()],
                hover: vec!["c\nd".into()],
            },
            FigureStyle::default(),
        );
        assert_eq!(
            serde_json::to_value(markers).unwrap(),
            json!({
                "type": "scatter", "name": "&lt;a&gt;", "showlegend": true, "mode": "markers+text", "x": [1.0], "y": [2.0],
                "marker": {"color": "#440154", "size": 7, "symbol": "diamond"},
                "error_y": {
                    "type": "data", "symmetric": false, "array": [2.0], "arrayminus": [0.5], "color": "#440154",
                    "thickness": 1.0, "width": 2
                },
                "text": ["b"], "textposition": "top center", "textfont": {"size": 10, "color": "black"},
                "hovertext": ["c<br>d"], "hoverinfo": "text"
            })
        );
    }

    #[test]
    fn strokes_are_one_line_with_gaps() {
        let strokes = vec![vec![[0.0, 1.0], [2.0, 3.0]]; 2];
        let strokes = Strokes { entry: entry(""), strokes, width: 9.0, opacity: 0.25, group: Some("a".into()) };
        let trace = serde_json::to_value(super::strokes(&strokes, FigureStyle::default())).unwrap();
        assert_eq!((&trace["x"], &trace["showlegend"]), (&json!([0.0, 2.0, null, 0.0, 2.0, null]), &json!(false)));
        assert_eq!((&trace["mode"], &trace["hoverinfo"]), (&json!("lines"), &json!("skip")));
        assert_eq!((&trace["opacity"], &trace["legendgroup"]), (&json!(0.25), &json!("a")));
        assert_eq!(trace["line"]["width"], json!(9.0));
    }
}
