//! The public type of figures: made from heads or experiments, shown by a notebook, exported as JSON, SVG or text.

use std::any::Any;
use std::path::Path;
use std::rc::Rc;

use plotly::Plot;

use super::charts::{Chart, LabelMenu, MatrixChart, Names};
use super::content::{Content, Drawn};
use super::heads::{Grid, HeadMenu, HeadPanel, HeatMaps};
use super::style::{ColorScale, FigureStyle, Look, Theme};
use super::{mime, plotly_writer, svg_writer};
use crate::attention_tokens::{HeadData, PromptHeadData};
use crate::error::{Error, Result, check_count};
use crate::files::replace;

/// A figure, which a notebook shows as the last expression of a cell.
///
/// To change something that this crate has no function for, take the [`plotly::Plot`], change it, and make a figure of
/// it again:
///
/// ```
/// use attention_tokens::{notebook::plot_attns, prelude::*};
/// use ndarray::arr2;
///
/// let mut plot = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])).to_plot();
/// let layout = plot.layout().clone().title("mine");
/// plot.set_layout(layout);
/// let figure = Figure::from(plot);
/// assert!(figure.to_json().contains("mine"));
/// ```
// The content is behind a trait object so that the type does not depend on plotly: in a notebook, each cell with a
// figure would otherwise compile the destructors of plotly's hundred types again.
#[derive(Clone)]
pub struct Figure {
    content: Rc<dyn Content>,
    style: FigureStyle,
}

/// Figures of heads.
impl Figure {
    /// One heat map.
    pub(crate) fn of_panel(panel: HeadPanel, style: FigureStyle) -> Self {
        Self { style, ..Self::new(HeatMaps::One(panel)) }
    }

    /// Two heat maps, with a title above and a description below.
    pub(crate) fn of_panels(
        left: HeadPanel,
        right: HeadPanel,
        title: &str,
        description: &str,
        style: FigureStyle,
    ) -> Self {
        Self { style, ..Self::new(HeatMaps::pair(left, right, title, description)) }
    }

    /// A small heat map for each head, in rows.
    ///
    /// # Errors
    /// [`Error::Count`] if there are no heads or too many cells, [`Error::DifferentPrompts`] if the heads ran on
    /// different prompts, [`Error::OutOfRange`] if there is no such prompt.
    pub(crate) fn grid(heads: &[HeadData], prompt: usize) -> Result<Self> {
        Ok(Self::new(Grid::new(heads, prompt)?))
    }

    /// A labelled heat map of one head, with a menu to show another.
    ///
    /// # Errors
    /// As for [`grid`](Self::grid).
    pub(crate) fn menu(heads: &[HeadData], prompt: usize, min_attn: f32) -> Result<Self> {
        Ok(Self::new(HeadMenu::new(heads, prompt, min_attn)?))
    }

    /// The one heat map of the figure. `function` is the caller, for the error.
    pub(crate) fn panel(&self, function: &'static str) -> Result<&HeadPanel> {
        let content: &dyn Any = &*self.content;
        content.downcast_ref().and_then(HeatMaps::panel).ok_or_else(|| Error::FigureKind {
            function,
            expected: "a figure with one heat map, as plot_attns makes it",
            found: self.content.kind(),
        })
    }

    /// The figure's heat map as that of a head, if it has the size of the head's data.
    pub(crate) fn panel_of(&self, data: &PromptHeadData, function: &'static str) -> Result<HeadPanel> {
        let panel = self.panel(function)?;
        let pos = data.n_pos();
        if panel.dim() != (pos, pos) {
            let (rows, columns) = panel.dim();
            return Err(Error::Shape {
                what: function.into(),
                axes: "[query_pos, key_pos]",
                expected: vec![pos, pos],
                found: vec![rows, columns],
                hint: "the figure and the data must be of the same prompt",
            });
        }
        Ok(panel.clone().with_data(data.clone()))
    }
}

impl Chart {
    pub(crate) fn figure(self) -> Figure {
        Figure::new(self)
    }
}

impl LabelMenu {
    /// For values around 0, as [`MatrixChart::diverging_figure`].
    pub(crate) fn diverging_figure(self) -> Figure {
        let style = FigureStyle { color_scale: Some(ColorScale::RdBu), ..FigureStyle::default() };
        Figure { style, ..Figure::new(self) }
    }
}

impl MatrixChart {
    pub(crate) fn figure(self) -> Figure {
        Figure::new(self)
    }

    /// For values that are indices of names, from 0 to the upper end of the scale: each has its own colour.
    pub(crate) fn figure_of_names(self) -> Figure {
        Figure::new(Names(self))
    }

    /// For values around 0, with ends that are as far from it: red is above, blue below, white is 0.
    pub(crate) fn diverging_figure(self) -> Figure {
        let figure = Figure::new(self);
        Figure { style: FigureStyle { color_scale: Some(ColorScale::RdBu), ..figure.style }, ..figure }
    }
}

impl Figure {
    pub(super) fn new(content: impl Content) -> Self {
        Self { content: Rc::new(content), style: FigureStyle::default() }
    }

    /// The marks of the figure, or the plot that it was made from.
    pub(super) fn draw(&self) -> Drawn {
        self.content.draw(self.style)
    }

    /// The figure as a [`plotly::Plot`], to change or to store. [`Figure::from`] makes a figure of it again.
    pub fn to_plot(&self) -> Plot {
        self.draw().into_plot(self.style)
    }

    /// The figure as plotly's JSON: `data`, `layout`, `config`.
    pub fn to_json(&self) -> String {
        plotly_writer::json(&self.to_plot())
    }

    /// The figure as a static picture, made without a browser; `None` for a figure made from a plot, because only
    /// plotly can draw it. (This includes a plot that was taken from a figure.)
    pub fn to_svg(&self) -> Option<String> {
        self.draw().to_svg(self.style)
    }

    /// The figure in every format that a notebook or a page can show.
    pub(super) fn formats(&self) -> Formats {
        // Drawn once for both writers: the hover texts are most of the work.
        let drawn = self.draw();
        let svg = drawn.to_svg(self.style);
        let json = plotly_writer::json(&drawn.into_plot(self.style));
        Formats { html: mime::html(&json, svg.as_deref(), &self.describe()), json, svg }
    }

    /// Writes the figure as a page that a browser opens without a network, with plotly.js in it (5 MB).
    ///
    /// ```
    /// use attention_tokens::{notebook::plot_attns, prelude::*};
    /// use ndarray::arr2;
    ///
    /// let figure = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]]));
    /// let folder = tempfile::tempdir()?;
    /// figure.write_html(folder.path().join("figure.html"))?;
    /// figure.write_svg(folder.path().join("figure.svg"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<()> {
        let page = mime::page(&self.formats().html, &self.describe(), self.style.theme().background());
        write(path.as_ref(), &page)
    }

    /// Writes the figure as a static picture, made without a browser.
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, because only plotly can draw it; [`Error::Write`] if the
    /// file cannot be written.
    pub fn write_svg(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), &self.svg_for("write_svg")?)
    }

    /// Writes the picture of [`write_svg`](Self::write_svg) as PNG, with two pixels for each pixel of the figure in both
    /// directions, as sharp as print needs. Its letters are those of the fonts that are installed: a character that none of
    /// them has is an empty box.
    ///
    /// Needs the feature `png` of this crate, in a notebook `features = ["png"]` on the `:dep` line. The feature is not in
    /// `full`, because every first set-up would compile its 39 crates. Without it, convert the SVG with
    /// `rsvg-convert --zoom 2 figure.svg > figure.png`, or use the camera in plotly's tool bar.
    ///
    /// # Errors
    /// [`Error::Feature`] without the feature; [`Error::Fonts`] if no font is installed; otherwise as for
    /// [`write_svg`](Self::write_svg).
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let svg = self.svg_for("write_png")?;
        #[cfg(feature = "png")]
        {
            let fonts = super::pixels::system_fonts()?;
            replace(path.as_ref(), |path| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
                Ok(std::fs::write(path, super::pixels::png(&svg, fonts)?)?)
            })
        }
        #[cfg(not(feature = "png"))]
        {
            let _ = (svg, path);
            Err(Error::Feature {
                function: "write_png",
                feature: "png",
                hint: "add features = [\"png\"] to the dependency, or use write_svg",
            })
        }
    }

    /// The static picture. `function` is the caller, for the error.
    fn svg_for(&self, function: &'static str) -> Result<String> {
        self.to_svg().ok_or(Error::FigureKind {
            function,
            expected: "a figure that this crate draws",
            found: "a figure made from a plot; use write_html",
        })
    }

    /// The figure in words.
    pub fn describe(&self) -> String {
        self.content.describe()
    }

    /// Writes the figure as plotly's JSON, as [`to_json`](Self::to_json) returns it: `plotly.io.read_json` in Python
    /// reads it.
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be written.
    pub fn write_json(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), &self.to_json())
    }

    /// Sets the theme of all figures of the process that have none of their own, those that exist included: one line at
    /// the beginning of a notebook, whose kernel is one process.
    ///
    /// ```
    /// use attention_tokens::{notebook::plot_attns, prelude::*};
    /// use ndarray::arr2;
    ///
    /// Figure::set_default_theme(Theme::Dark);
    /// let figure = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]]));
    /// assert!(figure.to_json().contains(r##""paper_bgcolor":"#111""##));
    /// assert!(figure.with_theme(Theme::Light)?.to_json().contains(r#""paper_bgcolor":"white""#));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_default_theme(theme: Theme) {
        theme.set_default();
    }

    /// The same figure in another theme.
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, whose style is part of the plot.
    pub fn with_theme(&self, theme: Theme) -> Result<Self> {
        self.with_style("with_theme", FigureStyle { theme: Some(theme), ..self.style })
    }

    /// The same figure in other colours.
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, whose style is part of the plot.
    pub fn with_color_scale(&self, color_scale: ColorScale) -> Result<Self> {
        self.with_style("with_color_scale", FigureStyle { color_scale: Some(color_scale), ..self.style })
    }

    /// The same figure with its tokens coloured in another way. Figures without tokens look the same.
    ///
    /// ```
    /// use attention_tokens::notebook::*;
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let run = run_prompts(&model, "The next sentence is false.")?;
    /// let figure = plot_head(&calculate_attns(&run, 0, 1)?.prompt(0)?);
    /// let original = figure.with_look(Look::Original)?;
    /// assert!(original.to_json().contains("Viridis") && !figure.to_json().contains("Viridis"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, whose style is part of the plot.
    pub fn with_look(&self, look: Look) -> Result<Self> {
        self.with_style("with_look", FigureStyle { look, ..self.style })
    }

    /// The same figure with this width and height in pixels, in plotly and as a static picture. Without it, figures are at
    /// most 940 pixels wide, which fits a notebook with JupyterLab's side bar open, and as high as their content needs.
    ///
    /// ```
    /// use attention_tokens::{notebook::plot_attns, prelude::*};
    /// use ndarray::arr2;
    ///
    /// let figure = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])).with_size(400, 300)?;
    /// assert!(figure.to_svg().unwrap().contains("width='400' height='300'"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`] for a width or height below 200 or above 10,000; [`Error::FigureKind`] for a figure made from a
    /// plot, whose layout has its size.
    pub fn with_size(&self, width: usize, height: usize) -> Result<Self> {
        check_count("with_size", "pixels of the width", width, 200, Some(10_000))?;
        check_count("with_size", "pixels of the height", height, 200, Some(10_000))?;
        self.with_style("with_size", FigureStyle { size: Some([width, height]), ..self.style })
    }

    fn with_style(&self, function: &'static str, style: FigureStyle) -> Result<Self> {
        let content: &dyn Any = &*self.content;
        if content.is::<Plot>() {
            return Err(Error::FigureKind {
                function,
                expected: "a figure that this crate draws",
                found: "a figure made from a plot; change its layout and its traces",
            });
        }
        Ok(Self { style, ..self.clone() })
    }

    pub(crate) fn style(&self) -> FigureStyle {
        self.style
    }

    /// Shows the figure in an evcxr notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        let Formats { json, html, svg } = self.formats();
        mime::show(Some(&json), &html, svg.as_deref(), &self.describe());
    }
}

/// A figure in every format that a notebook or a page can show.
pub(super) struct Formats {
    /// plotly's JSON.
    json: String,
    /// A fragment of HTML: a static picture, which plotly.js replaces once it is loaded, from the page or from its CDN.
    pub(super) html: String,
    /// A static picture; `None` for a figure made from a plot.
    pub(super) svg: Option<String>,
}

fn write(path: &Path, text: &str) -> Result<()> {
    replace(path, |path| std::fs::write(path, text))
}

impl Drawn {
    fn into_plot(self, style: FigureStyle) -> Plot {
        match self {
            Self::Marks(drawing) => plotly_writer::plot(&drawing, style),
            Self::Plot(plot) => *plot,
        }
    }

    fn to_svg(&self, style: FigureStyle) -> Option<String> {
        match self {
            Self::Marks(drawing) => Some(svg_writer::svg(drawing, style)),
            Self::Plot(_) => None,
        }
    }
}

impl From<Plot> for Figure {
    fn from(plot: Plot) -> Self {
        Self::new(plot)
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure({})", self.describe())
    }
}
