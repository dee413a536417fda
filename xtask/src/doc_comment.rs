//! Documentation of several lines as one comment.

use std::ops::Range;

use proc_macro2::TokenTree;

/// Several lines of documentation, joined to one block comment.
pub(crate) struct DocComment {
    pub(crate) text: String,
    /// Where the lines are in the source.
    pub(crate) place: Range<usize>,
    /// The number of tokens that the lines are.
    pub(crate) tokens: usize,
}

impl DocComment {
    /// The comment whose lines begin with the first token, if they can be joined: in a block comment, `/*` and `*/` have a meaning,
    /// also where the marks meet the text.
    pub(crate) fn find(source: &str, tokens: &[TokenTree]) -> Option<Self> {
        let first = tokens.first()?.span().byte_range();
        let (mark, open) =
            [("///", "/**"), ("//!", "/*!")].into_iter().find(|(mark, _)| source[first.clone()].starts_with(mark))?;
        let (mut lines, mut place, mut count) = (Vec::new(), first.start..first.start, 0);
        for token in tokens {
            let range = token.span().byte_range();
            if range.end > place.end {
                let line = &source[range.clone()];
                if !line.starts_with(mark) {
                    break;
                }
                lines.push(line[mark.len()..].trim_end());
                place.end = range.end;
            }
            count += 1;
        }
        let text = lines.join("\n");
        let can_be_joined = lines.len() > 1
            && !text.contains("/*")
            && !text.contains("*/")
            && !text.starts_with(['*', '/'])
            && !text.ends_with('/');
        can_be_joined.then(|| Self { text: format!("{open}{text}*/"), place, tokens: count })
    }
}

#[cfg(test)]
mod tests {
    use crate::std_outline::outline;

    #[test]
    fn documentation_of_several_lines_is_one_comment() {
        for (source, expected) in [
            ("    /// “One”.\n    ///\n    ///     two  \n    fn f();", "/** “One”.\n\n     two*/\nfn f();"),
            ("//! One.\n//!\n\n//! Two.\n\n/// Three.\nmod a;", "/*! One.\n\n Two.*/\n/// Three.\nmod a;"),
            (
                "/// 1\n/// 2\n#[inline]\n/// 3\n/// 4\n#[doc = \"5\"] mod a;",
                "/** 1\n 2*/\n/** 3\n 4*/\n#[doc = \"5\"] mod a;",
            ),
            ("m! {\n/// 1\n/// 2\n}\n/// 3\n// No.\n/// 4\nmod a;", "m! {\n/// 1\n/// 2\n}\n/** 3\n 4*/\nmod a;"),
            (
                "macro_rules! m { () => {\n/// 1\n/// 2\nfn f() { 1 }\n} }",
                "macro_rules! m { () => {\n/** 1\n 2*/\nfn f() { }\n} }",
            ),
            ("////\n", ""),
        ] {
            assert_eq!(outline(source), expected);
            assert_eq!(outline(expected), expected);
        }
        for kept in [
            "///* 1\n/// 2\nmod a;",
            "///\n/// a/*b\nmod a;",
            "/// 1\n/// /\nmod a;",
            "/** 1\n 2*/\n///* 3\nmod a;",
            "/// 1\n/** 2 */\nmod a;",
        ] {
            assert_eq!(outline(kept), kept);
        }
    }
}
