//! The MIME bundle of a figure. Each front end picks the richest type it can display.
//!
//! | type | for |
//! |---|---|
//! | `application/vnd.plotly.v1+json` | JupyterLab, Notebook 7, VS Code |
//! | `text/html` | nbconvert, nbviewer, Colab: the static picture, until plotly.js is loaded from its CDN |
//! | `image/svg+xml` | GitHub, print |
//! | `text/plain` | terminals, screen readers |

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use percent_encoding::{AsciiSet, CONTROLS, PercentEncode, utf8_percent_encode};
use plotly::Plot;

use super::text::escape_xml;
use crate::evcxr;

/// The plotly.js of the Python package that environment.yml pins, so that a figure looks the same everywhere.
const PLOTLY_JS: &str = "https://cdn.plot.ly/plotly-3.7.0.min.js";

/// HTML that shows a static picture, or the description if there is none, and replaces it by the plotly figure once
/// plotly.js is loaded, which happens once a page. Without a network the picture stays.
pub(super) fn html(json: &str, picture: Option<&str>, description: &str) -> String {
    let description = escape_xml(description);
    // As an image, because GitHub removes scripts and inline SVG from HTML, but not images.
    let picture = match picture {
        Some(svg) => format!("<img alt='{description}' src=\"data:image/svg+xml,{}\">", percent_encoded(svg)),
        None => description,
    };
    let compressed = compressed(json);
    format!(
        r#"<div class="attention-tokens-figure">{picture}</div>
<script>
(function () {{
  const place = document.currentScript && document.currentScript.previousElementSibling;
  if (!place) return;
  const packed = Uint8Array.from(atob("{compressed}"), (c) => c.charCodeAt(0));
  window.attentionTokensPlotly ??= window.Plotly ? Promise.resolve() : new Promise((loaded, failed) => {{
    const script = document.createElement("script");
    script.src = "{PLOTLY_JS}";
    script.onload = loaded;
    script.onerror = failed;
    document.head.append(script);
  }});
  window.attentionTokensPlotly.then(async () => {{
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const figure = await new Response(unpacked).json();
    const drawn = document.createElement("div");
    await window.Plotly.newPlot(drawn, figure.data, figure.layout, figure.config);
    place.replaceChildren(drawn);
  }}).catch(() => {{}});
}})();
</script>"#
    )
}

/// Shows a figure in an evcxr notebook, in all of its formats. `json` is plotly's, of a single figure.
pub(super) fn show(json: Option<&str>, html: &str, svg: Option<&str>, description: &str) {
    let mut contents: Vec<(&str, &str)> =
        json.map(|json| ("application/vnd.plotly.v1+json", json)).into_iter().collect();
    contents.push(("text/html", html));
    contents.extend(svg.map(|svg| ("image/svg+xml", svg)));
    contents.push(("text/plain", description));
    evcxr::show(&contents);
}

/// A page around a figure's [`html`], which draws it without a network: the page has the plotly.js of the crate `plotly`.
pub(super) fn page(figure: &str, description: &str, background: &str) -> String {
    let scripts = Plot::offline_js_sources();
    // The first script is plotly.js; the second one typesets LaTeX, which no figure has.
    let plotly_js = scripts.split_inclusive("</script>").next().unwrap_or_default();
    let title = escape_xml(description);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         {plotly_js}\n</head>\n<body style=\"background: {background}\">\n{figure}\n</body>\n</html>\n"
    )
}

/// zlib, then base64. The JSON of a figure, which is repetitive, becomes a tenth of its size.
fn compressed(json: &str) -> String {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = zlib.write_all(json.as_bytes()).and_then(|()| zlib.finish());
    BASE64_STANDARD.encode(written.expect("writing to a vector cannot fail"))
}

/// The characters that a `data:` URL in an attribute between double quotes cannot hold.
const NOT_IN_URL: &AsciiSet = &CONTROLS.add(b'%').add(b'#').add(b'"').add(b'<').add(b'>').add(b'&');

/// Percent-encodes an SVG for a `data:` URL in an attribute between double quotes.
fn percent_encoded(svg: &str) -> PercentEncode<'_> {
    utf8_percent_encode(svg, NOT_IN_URL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_plotly_js_and_loads_nothing() {
        let page = page(&html("{}", Some("<svg/>"), "a <b>"), "a <b>", "#111");
        assert!(page.starts_with("<!doctype html>") && page.contains("<title>a &lt;b&gt;</title>"));
        assert!(page.contains("* plotly.js v") && page.contains("background: #111"));
        // The figure's own script asks for plotly.js only where the page has none, and there is no other address.
        assert_eq!(page.matches("<script").count(), 2);
        assert!(!page.contains("<script src") && !page.contains("<link"));
    }

    #[test]
    fn a_token_cannot_end_the_script_or_the_attribute() {
        let html = html(r#"{"a":"</script><!--"}"#, Some("<svg a='#\"&amp;'/>"), "a 'b' <c>");
        assert_eq!(html.matches("</script>").count(), 1);
        let packed = html.split("atob(\"").nth(1).unwrap().split('"').next().unwrap();
        let bytes = BASE64_STANDARD.decode(packed).unwrap();
        let mut json = String::new();
        std::io::Read::read_to_string(&mut flate2::read::ZlibDecoder::new(&bytes[..]), &mut json).unwrap();
        assert_eq!(json, r#"{"a":"</script><!--"}"#);
        assert!(html.contains("alt='a &#39;b&#39; &lt;c&gt;' src=\"data:image/svg+xml,%3Csvg a='%23%22%26amp;'/%3E\""));
    }
}
