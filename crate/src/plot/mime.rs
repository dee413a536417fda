//! What a figure is to each front end: one bundle of MIME types, of which it takes what it likes best.
//!
//! | type | for |
//! |---|---|
//! | `application/vnd.plotly.v1+json` | JupyterLab, Notebook 7, VS Code |
//! | `text/html` | nbconvert, nbviewer, Colab: the picture, until plotly.js has come from its CDN |
//! | `image/svg+xml` | GitHub, print |
//! | `text/plain` | terminals, and those who do not see it |

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::svg::escape;

/// The plotly.js of the plotly wheel that environment.yml pins, so a figure looks the same everywhere.
const PLOTLY_JS: &str = "https://cdn.plot.ly/plotly-3.7.0.min.js";

/// A piece of HTML that shows `picture`, a static one or nothing, and draws the figure in its place once plotly.js is
/// there: it is loaded once a page. Without a network the picture stays.
pub(super) fn html(json: &str, picture: Option<&str>, description: &str) -> String {
    let description = escape(description);
    // As an image, for GitHub takes scripts and drawings out of HTML, but leaves images.
    let picture = match picture {
        Some(svg) => format!("<img alt='{description}' src=\"data:image/svg+xml,{}\">", for_url(svg)),
        None => description,
    };
    let packed = packed(json);
    format!(
        r#"<div class="attention-tokens-figure">{picture}</div>
<script>
(function () {{
  const place = document.currentScript && document.currentScript.previousElementSibling;
  if (!place) return;
  const packed = Uint8Array.from(atob("{packed}"), (c) => c.charCodeAt(0));
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

/// Compressed, as text: a figure's JSON, which says the same things many times, is a tenth of its size then.
fn packed(json: &str) -> String {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = zlib.write_all(json.as_bytes()).and_then(|()| zlib.finish());
    BASE64_STANDARD.encode(written.expect("a vector takes everything"))
}

/// What must not be in an attribute between double quotes that is an address.
fn for_url(svg: &str) -> String {
    svg.chars().fold(String::with_capacity(svg.len() + svg.len() / 4), |mut url, c| {
        match c {
            '%' => url.push_str("%25"),
            '#' => url.push_str("%23"),
            '"' => url.push_str("%22"),
            '<' => url.push_str("%3C"),
            '>' => url.push_str("%3E"),
            '&' => url.push_str("%26"),
            c => url.push(c),
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
