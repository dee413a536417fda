//! Texts that would run, or load something, if a page took them for more than text; and a model that says nothing else.

use std::path::Path;

use attention_tokens::prelude::*;
use serde_json::json;

use crate::support::{Folder, load};

/// Every text sets `window.__ran`, or makes an element or a style that the page would not have, or loads something from
/// `PORT`. At most 40 characters, so that the label of such a token has all of them. (The port has 5 digits.)
const PAYLOADS: [&str; 74] = [
    // Elements.
    "<script>__ran=1</script>",
    "<ScRiPt>__ran=1</sCrIpT >",
    "<img src=x onerror=__ran=1>",
    "<img/src=x/onerror=__ran=1>",
    "<img/src=http://127.0.0.1:PORT/>",
    "<svg onload=__ran=1>",
    "<svg/onload=__ran=1>",
    "<svg><script>__ran=1</script></svg>",
    "<svg><animate onbegin=__ran=1 />",
    "<body onload=__ran=1>",
    "<details open ontoggle=__ran=1>",
    "<input autofocus onfocus=__ran=1>",
    "<iframe src=javascript:parent.__ran=1>",
    "<object data=javascript:__ran=1>",
    "<math><a xlink:href=javascript:__ran=1>",
    "<form action=javascript:__ran=1><input>",
    "<base href=http://127.0.0.1:PORT/>",
    "<meta http-equiv=refresh content='0;x'>",
    "<link rel=icon href=//127.0.0.1:PORT>",
    "<style>*{color:expression(__ran=1)}",
    "<style>@import'http://127.0.0.1:PORT'",
    // Ends of what a text may be in.
    "</script><script>__ran=1</script>",
    "</style><script>__ran=1</script>",
    "</title><script>__ran=1</script>",
    "</textarea><svg/onload=__ran=1>",
    "</template><svg/onload=__ran=1>",
    "</noscript><svg/onload=__ran=1>",
    "</text></svg><svg/onload=__ran=1>",
    "--><svg/onload=__ran=1>",
    "<!--<script>__ran=1</script>",
    "]]><svg/onload=__ran=1>",
    "<![CDATA[<svg/onload=__ran=1>]]>",
    "<?xml-stylesheet href=//127.0.0.1:PORT",
    "\"><svg/onload=__ran=1>",
    "'><svg/onload=__ran=1>",
    "\" onmouseover=\"__ran=1",
    "' onmouseover='__ran=1",
    "x onmouseover=__ran=1 ",
    "\"/onerror=\"__ran=1\"/src=\"x",
    // Entities, which may be read once too often.
    "&lt;svg/onload=__ran=1&gt;",
    "&#60;svg/onload=__ran=1&#62;",
    "&#x3c;svg/onload=__ran=1&#x3e;",
    "&amp;lt;svg/onload=__ran=1&amp;gt;",
    "%3Csvg/onload=__ran=1%3E",
    "\\u003csvg/onload=__ran=1\\u003e",
    "+ADw-svg/onload=__ran=1+AD4-",
    "\u{ff1c}svg/onload=__ran=1\u{ff1e}",
    // Links.
    "javascript:__ran=1",
    "<a href=\"javascript:__ran=1\">a</a>",
    "<a href='javascript:__ran=1'>a</a>",
    "<a href=\"http://127.0.0.1:PORT\">a</a>",
    "[__ran](javascript:__ran=1)",
    "![__ran](http://127.0.0.1:PORT/)",
    // What plotly reads in a text.
    "<b>__ran</b>",
    "<i>__ran</i><br><sup>__ran</sup>",
    "<span style=\"color:url(__ran)\">a</span>",
    "<em>__ran</em><extra>__ran</extra>",
    "%{text}%{meta[0]}%{__ran}",
    // Formulas.
    "$\\href{javascript:__ran=1}{a}$",
    "$$\\unicode{<svg/onload=__ran=1>}$$",
    "\\(\\href{javascript:__ran=1}{a}\\)",
    "\\begin{a}\\href{javascript:__ran=1}{a}",
    // Strings of JavaScript and of JSON, templates.
    "\";__ran=1;//",
    "';__ran=1;//",
    "\\\";__ran=1;//",
    "\"}]});__ran=1;({\"a\":[{\"",
    "`;__ran=1;`",
    "${__ran=1}",
    "{{constructor.constructor('__ran=1')()}}",
    // Characters that end a line of JavaScript, turn the direction of a text, or are nothing in XML.
    "';\u{2028}__ran=1;\u{2029}'",
    "\u{202e}>1=nar__=daolno/gvs<\u{202c}",
    "\u{0}<svg/onload=__ran=1>",
    "<svg\u{b}onload=__ran=1>",
    "\r\n\r\n<svg/onload=__ran=1>",
];

/// The name of a folder, and so of a model, in which a slash cannot be.
pub(super) const FOLDER: &str = "<img src=x onerror=__ran=1>'\"&amp;<b>$x$";

/// The texts, for a server at a port of this machine.
pub(super) fn payloads(port: u16) -> Vec<String> {
    let texts: Vec<String> = PAYLOADS.iter().map(|text| text.replace("PORT", &port.to_string())).collect();
    for text in &texts {
        assert!(text.chars().count() <= 40, "{text}");
    }
    texts
}

/// The model of `tests/fixtures/tiny`, in a folder with this name, with a vocabulary of these texts: each is a token,
/// some with a space in front too.
pub(super) fn hostile_model(scratch: &Path, name: &str, payloads: &[String]) -> Gpt2 {
    let tiny = Folder::copy_of("tiny");
    let folder = scratch.join(name);
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny.path().join(file), folder.join(file)).unwrap();
    }
    let spaced = payloads.iter().map(|text| format!(" {text}"));
    let tokens: Vec<String> =
        ["<|endoftext|>".into(), "[UNK]".into()].into_iter().chain(payloads.iter().cloned()).chain(spaced).collect();
    let tokens = &tokens[..97];
    let vocab: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
    let added: Vec<_> = tokens
        .iter()
        .enumerate()
        .map(|(id, text)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": added,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let model = load(&folder).unwrap();
    for (id, text) in tokens.iter().enumerate().skip(2) {
        assert_eq!(model.to_tokens_without_bos(text).unwrap(), [id as u32], "{text:?} is a token");
    }
    model
}
