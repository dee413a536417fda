//! A concordance as static HTML pages: one for each head, and an index of them. They work offline: no page loads anything.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{Concordance, HeadWord, HeadWords, WordContext};
use crate::error::{Error, Result};
use crate::files::replace;
use crate::plot::escape_xml;

/// What the browser may do: use the style and the script of the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// By which a later run knows the pages that it may replace: `crate/examples/concordance.rs` looks for it.
const GENERATOR: &str = "<meta name=\"generator\" content=\"attention-tokens, concordance\">";

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}\
input{font:inherit;width:100%;padding:.3rem;box-sizing:border-box}h2{font-size:1.1rem;margin:1.2rem 0 .2rem}\
code{background:#8883;padding:0 .2rem}p{margin:.15rem 0}small{opacity:.75}\
.k{background:#2a9d8f66;outline:1px solid #2a9d8f}.q{background:#e9c46a66;outline:1px solid #e9c46a}\
.q.k{background:linear-gradient(90deg,#e9c46a66 50%,#2a9d8f66 50%)}\
td,th{text-align:left;vertical-align:top;padding:.2rem .6rem}";

/// Shows the parts that have the words of the search box in them.
const SCRIPT: &str = "\
const box=document.querySelector('input'),parts=[...document.querySelectorAll('[data-part]')];\
const texts=parts.map(part=>part.textContent.toLowerCase());\
box.addEventListener('input',()=>{const wanted=box.value.toLowerCase();\
parts.forEach((part,index)=>{part.hidden=!texts[index].includes(wanted)})});";

impl Concordance {
    /// Writes `index.html`, and `head-LAYER-HEAD.html` for each head, into a folder, which is created if it does not exist.
    /// Each file is replaced as a whole. The pages search the words and the contexts in the browser, and load nothing.
    ///
    /// # Errors
    /// [`Error::Write`] naming the folder or the file.
    pub fn write_pages(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
        for head in &self.heads {
            write(&folder.join(file_name(head)), &self.head_page(head))?;
        }
        write(&folder.join("index.html"), &self.index_page())
    }

    /// The page of a head: a part for each word.
    fn head_page(&self, head: &HeadWords) -> String {
        let name = format!("{}.{}", head.layer, head.head);
        let mut body = format!(
            "<p><a href=\"index.html\">all heads</a></p><h1>Head {name}</h1><p>{}. {} of {} words of {} cells, most \
             frequent first; contexts by attention, <span class=\"q\">query</span> and <span class=\"k\">key</span>. \
             <code>→</code> is the token that the pair writes.</p>",
            escape_xml(&self.source()),
            head.words.len(),
            head.n_words,
            head.n_cells,
        );
        body.push_str("<input type=\"search\" placeholder=\"a word, or a part of a context\">");
        for word in &head.words {
            self.push_word(&mut body, word);
        }
        page(&format!("Head {name}"), &body)
    }

    fn push_word(&self, body: &mut String, word: &HeadWord) {
        let label = escape_xml(&self.labels.label(word.token));
        let HeadWord { count, contexts, .. } = word;
        let _ = write!(body, "\n<section data-part><h2><code>{label}</code> <small>{count}</small></h2>");
        for context in contexts {
            let _ = write!(body, "<p><small>{:.3}</small> ", context.attn);
            for position in 0..context.tokens.len() {
                self.push_token(body, context, position);
            }
            let written = escape_xml(&self.labels.label(context.written));
            let _ = write!(body, " → <code>{written}</code> <small>prompt {}</small></p>", context.prompt + 1);
        }
        body.push_str("</section>");
    }

    /// A token of a context, with its spaces as spaces.
    fn push_token(&self, body: &mut String, context: &WordContext, position: usize) {
        let label = self.labels.label(context.tokens[position]);
        let (space, text) = match label.strip_prefix('␣') {
            Some(text) => (" ", text),
            None => ("", &*label),
        };
        let text = escape_xml(text);
        body.push_str(space);
        let class = match (position == context.query, position == context.key) {
            (true, true) => "q k",
            (true, false) => "q",
            (false, true) => "k",
            (false, false) => return body.push_str(&text),
        };
        let _ = write!(body, "<span class=\"{class}\">{text}</span>");
    }

    /// The page of all heads: a row for each, with its words.
    fn index_page(&self) -> String {
        let mut body = format!(
            "<h1>Concordance</h1><p>{}. Search a word to find the heads that have it.</p>\
             <input type=\"search\" placeholder=\"a word\">\n<table><tr><th>head<th>words<th>most frequent first</tr>",
            escape_xml(&self.source())
        );
        for head in &self.heads {
            let words: Vec<String> = head.words.iter().map(|word| escape_xml(&self.labels.label(word.token))).collect();
            let _ = write!(
                body,
                "\n<tr data-part><td><a href=\"{}\">{}.{}</a><td>{}<td>{}</tr>",
                file_name(head),
                head.layer,
                head.head,
                head.n_words,
                words.join(" ")
            );
        }
        body.push_str("</table>");
        page("Concordance", &body)
    }

    fn source(&self) -> String {
        let n = self.n_prompts;
        let prompts = if n == 1 { "prompt" } else { "prompts" };
        format!("{}, read through {}, {n} {prompts}", self.model, self.options.reading.in_words())
    }
}

fn file_name(head: &HeadWords) -> String {
    format!("head-{}-{}.html", head.layer, head.head)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">{GENERATOR}\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body>{body}\n<script>{SCRIPT}</script></body></html>\n"
    )
}

fn write(path: &Path, page: &str) -> Result<()> {
    replace(path, |path| fs::write(path, page))
}
