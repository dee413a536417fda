//! The source of a module without the bodies of functions, attributes for the compiler, and comments other than documentation, for
//! rust-analyzer.
//!
//! rust-analyzer looks for types in the standard library, and a body says nothing about types, except where an `impl Trait` or the
//! length of an array depends on it. Documentation stays, because evcxr shows it. Its lines are joined to one block comment:
//! rust-analyzer reads that as one token, and the expansion of a macro has one attribute instead of one for each line.

use std::ops::Range;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::doc_comment::DocComment;

/// The first words of items.
const ITEMS: [&str; 11] = ["enum", "fn", "impl", "let", "mod", "pub", "static", "struct", "trait", "type", "use"];

/// Attributes for the compiler. rust-analyzer uses none of them for types, completion or documentation (`must_use` and `diagnostic`
/// only for warnings and errors, which evcxr takes from the compiler).
const LEFT_OUT: [&str; 21] = [
    "allow",
    "cold",
    "deny",
    "diagnostic",
    "expect",
    "inline",
    "must_use",
    "optimize",
    "rustc_allow_const_fn_unstable",
    "rustc_as_ptr",
    "rustc_confusables",
    "rustc_const_stable",
    "rustc_const_unstable",
    "rustc_diagnostic_item",
    "rustc_inherit_overflow_checks",
    "rustc_never_returns_null_ptr",
    "rustc_no_implicit_autorefs",
    "rustc_on_unimplemented",
    "stable",
    "track_caller",
    "warn",
];

/// A source file with `{}` for the bodies of its functions, without the attributes in [`LEFT_OUT`], and without comments other
/// than documentation.
///
/// Bodies of functions that are `const` or `async` or return an `impl Trait` stay, because types can depend on them. Inner
/// attributes (`#![…]`) stay, and so do those in the arguments and patterns of macros.
pub(crate) fn outline(source: &str) -> String {
    let Ok(tokens) = source.parse::<TokenStream>() else {
        return source.to_owned(); // It has syntax that only the newest compilers know.
    };
    let mut outline = Outline { source, text: String::with_capacity(source.len()), end: 0 };
    outline.write(tokens, Kept { bodies: false, attributes: false });
    // The spans would keep the sources in memory.
    proc_macro2::extra::invalidate_current_thread_spans();
    outline.text
}

/// What stays in a group of tokens.
#[derive(Clone, Copy)]
struct Kept {
    bodies: bool,
    /// All attributes, and documentation line by line: the arguments of a macro have to match its patterns.
    attributes: bool,
}

/// An outline that is being written.
struct Outline<'a> {
    source: &'a str,
    text: String,
    /// Where the last token ends in the source.
    end: usize,
}

impl Outline<'_> {
    /// Writes the outline of some tokens.
    fn write(&mut self, tokens: TokenStream, kept: Kept) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let (mut body, mut constant) = (None, None);
        let mut next = 0;
        while let Some(token) = tokens.get(next) {
            let at = next;
            next += 1;
            if !kept.attributes {
                if is_left_out(&tokens[at..]) {
                    next = at + 2;
                    continue;
                }
                if let Some(comment) = DocComment::find(self.source, &tokens[at..]) {
                    next = at + comment.tokens;
                    self.push(&comment.place, &comment.text);
                    continue;
                }
            }
            match token {
                TokenTree::Group(group) => {
                    self.push_source(group.span_open().byte_range());
                    if kept.bodies || body != Some(at) {
                        let kept = Kept {
                            bodies: kept.bodies || constant == Some(at),
                            attributes: kept.attributes || is_of_macro(&tokens, at),
                        };
                        self.write(group.stream(), kept);
                    }
                    self.push_source(group.span_close().byte_range());
                    continue;
                }
                TokenTree::Ident(word) if word == "fn" => body = find_body(&tokens, at).or(body),
                TokenTree::Ident(word) if word == "impl" || word == "trait" => {
                    constant = find_constant(&tokens, at).or(constant);
                }
                _ => {}
            }
            self.push_source(token.span().byte_range());
        }
    }

    /// Writes a token as it is.
    fn push_source(&mut self, place: Range<usize>) {
        let source = self.source;
        self.push(&place, &source[place.clone()]);
    }

    /// Writes the text that stands for a place in the source. White space comes first if something separates the place from the
    /// token before.
    fn push(&mut self, place: &Range<usize>, text: &str) {
        // All tokens of a doc comment have the comment's place.
        let Some(between) = self.source.get(self.end..place.start) else { return };
        self.text.push_str(match between {
            _ if self.text.is_empty() => "",
            "" => "",
            between if between.contains('\n') => "\n",
            _ => " ",
        });
        self.text.push_str(text);
        self.end = place.end;
    }
}

/// Whether the tokens begin with an attribute that is left out.
fn is_left_out(tokens: &[TokenTree]) -> bool {
    let [_, TokenTree::Group(attribute), ..] = tokens else { return false };
    is_mark(tokens, Some(0), '#')
        && attribute.delimiter() == Delimiter::Bracket
        && has_no_use(&attribute.stream().into_iter().collect::<Vec<_>>())
}

/// Whether an attribute, without its brackets, is one of [`LEFT_OUT`], or a `cfg_attr` that adds only such.
fn has_no_use(attribute: &[TokenTree]) -> bool {
    match attribute {
        [TokenTree::Ident(word), TokenTree::Group(group)] if word == "cfg_attr" => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let mut parts = tokens.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ','));
            let _condition = parts.next();
            parts.filter(|part| !part.is_empty()).all(has_no_use)
        }
        [TokenTree::Ident(word), ..] => LEFT_OUT.iter().any(|left_out| word == left_out),
        _ => false,
    }
}

/// Whether the group at an index is the arguments of a macro, or the pattern of one of its rules: `name!(…)`, `(…) => {…}` or
/// `macro name(…) {…}`.
fn is_of_macro(tokens: &[TokenTree], at: usize) -> bool {
    // Not the brackets of `#![…]`, nor the body after `-> !`.
    let is_called = is_mark(tokens, at.checked_sub(1), '!')
        && ['#', '>'].iter().all(|&mark| !is_mark(tokens, at.checked_sub(2), mark));
    let is_rule = is_mark(tokens, Some(at + 1), '=') && is_mark(tokens, Some(at + 2), '>');
    let is_only_rule = matches!(&tokens[..=at], [.., TokenTree::Ident(word), TokenTree::Ident(_), TokenTree::Group(pattern)]
        if word == "macro" && pattern.delimiter() == Delimiter::Parenthesis);
    is_called || is_rule || is_only_rule
}

/// Where the body is of the function whose `fn` is at an index, if it can be left out.
fn find_body(tokens: &[TokenTree], at: usize) -> Option<usize> {
    match tokens.get(at + 1)? {
        TokenTree::Ident(_) => {}
        TokenTree::Punct(dollar) if dollar.as_char() == '$' => {} // a name from a macro
        _ => return None,                                         // a type
    }
    let signature = before_block(&tokens[at + 1..])?;
    // In a macro, the body may be a variable, and the block that of the next item.
    let is_of_another_item =
        signature.iter().any(|token| matches!(token, TokenTree::Ident(word) if ITEMS.iter().any(|item| word == item)));
    let is_kept = is_of_another_item || may_be(&["const", "async"], &tokens[..at]) || returns_impl(signature);
    (!is_kept).then_some(at + 1 + signature.len())
}

/// Where the block is of the `const` trait or `const` implementation whose keyword is at an index. Its functions are `const`
/// without saying so.
fn find_constant(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let header = before_block(&tokens[at..])?;
    let mut depth = 0;
    let mut outside = header.iter().enumerate().filter(|&(at, token)| {
        depth = depth_after(header, at, depth);
        depth == 0 && matches!(token, TokenTree::Ident(word) if word == "const")
    });
    let is_constant = outside.next().is_some() || may_be(&["const"], &tokens[..at]);
    is_constant.then_some(at + header.len())
}

/// Whether one of the `words` is, or may be, among those directly before an item's keyword.
fn may_be(words: &[&str], before: &[TokenTree]) -> bool {
    let has_word = |token: &TokenTree| match token {
        TokenTree::Ident(word) => words.iter().any(|wanted| word == wanted),
        // `$(const)?` in a macro.
        TokenTree::Group(group) => group.stream().to_string().split(' ').any(|word| words.contains(&word)),
        _ => false,
    };
    for (at, token) in before.iter().enumerate().rev() {
        match token {
            TokenTree::Group(group) if group.delimiter() != Delimiter::Parenthesis => break, // the item before, or an attribute
            TokenTree::Punct(mark) if !"$?".contains(mark.as_char()) => break,
            // A variable of a macro, which can be anything unless it is the visibility.
            TokenTree::Punct(mark) if mark.as_char() == '$' => {
                if matches!(&before[at + 1..], [TokenTree::Ident(name), ..] if name != "vis") {
                    return true;
                }
            }
            token if has_word(token) => return true,
            _ => {}
        }
    }
    false
}

/// The tokens before an item's block. The declaration of a method has none.
fn before_block(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    // The braces in `Array<{ N }>` are no block.
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        depth = depth_after(tokens, at, depth);
        match token {
            TokenTree::Punct(mark) if mark.as_char() == ';' => return None,
            // Nor those in a macro's `${concat(…)}`.
            TokenTree::Group(group)
                if depth == 0 && group.delimiter() == Delimiter::Brace && !is_mark(tokens, at.checked_sub(1), '$') =>
            {
                return Some(&tokens[..at]);
            }
            _ if depth < 0 => return None,
            _ => {}
        }
    }
    None
}

/// How many angle brackets are open after the token at an index, if `depth` were before it.
fn depth_after(tokens: &[TokenTree], at: usize, depth: i32) -> i32 {
    match &tokens[at] {
        TokenTree::Punct(mark) if mark.as_char() == '<' => depth + 1,
        TokenTree::Punct(mark) if mark.as_char() == '>' && !is_arrow(tokens, at) => depth - 1,
        _ => depth,
    }
}

/// Whether `impl` is in the tokens after the arrow of a signature.
fn returns_impl(signature: &[TokenTree]) -> bool {
    fn has_impl(tokens: impl IntoIterator<Item = TokenTree>) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(word) => word == "impl",
            TokenTree::Group(group) => has_impl(group.stream()),
            _ => false,
        })
    }
    let arrow = (0..signature.len()).find(|&at| is_arrow(signature, at));
    arrow.is_some_and(|arrow| has_impl(signature[arrow..].iter().cloned()))
}

/// Whether the token at an index is the second half of `->`.
fn is_arrow(tokens: &[TokenTree], at: usize) -> bool {
    is_mark(tokens, Some(at), '>') && is_mark(tokens, at.checked_sub(1), '-')
}

/// Whether there is a token at an index, and it is this punctuation mark.
fn is_mark(tokens: &[TokenTree], at: Option<usize>, wanted: char) -> bool {
    matches!(at.and_then(|at| tokens.get(at)), Some(TokenTree::Punct(mark)) if mark.as_char() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_comments_are_left_out_unless_a_type_depends_on_them() {
        for (source, expected) in [
            (
                "//! A module of “é”.\n#![no_std] // A comment.\n\n/** More. */ mod a;",
                "//! A module of “é”.\n#![no_std]\n/** More. */ mod a;",
            ),
            ("/// `fn f() { 1 }` é\n    pub fn f() -> u8 { 1 }", "/// `fn f() { 1 }` é\npub fn f() -> u8 { }"),
            ("fn f<T: Fn(u8) -> u8>(x: T) where T: Copy, { g(x) }", "fn f<T: Fn(u8) -> u8>(x: T) where T: Copy, { }"),
            (r##"fn f() { let a = ("}", '{', b'}'); /* } */ r#"}"# } fn g() {}"##, "fn f() { } fn g() {}"),
            ("fn f() -> Array<{ N + 1 }, u8> { F() }", "fn f() -> Array<{ N + 1 }, u8> { }"),
            ("fn takes(x: impl Sized) -> u8 { drop(x) }", "fn takes(x: impl Sized) -> u8 { }"),
            ("extern \"C\" fn f(_: fn(u8) -> u8) -> u8 { 1 }", "extern \"C\" fn f(_: fn(u8) -> u8) -> u8 { }"),
            (
                "impl<'a> T for P {\n    fn f(&self) -> &'a str { \"é\" }\n    fn r#fn() { 1 }\n}",
                "impl<'a> T for P {\nfn f(&self) -> &'a str { }\nfn r#fn() { }\n}",
            ),
            (
                "trait T { fn f(&self) -> u8; fn g(&self) -> u8 { 1 } }",
                "trait T { fn f(&self) -> u8; fn g(&self) -> u8 { } }",
            ),
            ("mod a { fn f() { fn g() {} } }", "mod a { fn f() { } }"),
            ("fn ${concat($f, _x)}(n: u8) -> u8 { 1 }", "fn ${concat($f, _x)}(n: u8) -> u8 { }"),
            ("$vis fn f() { 1 } #[a(const)] fn g() { 1 }", "$vis fn f() { } #[a(const)] fn g() { }"),
            (
                "impl<const N: usize> T for A<{ N }> { fn f() { 1 } }",
                "impl<const N: usize> T for A<{ N }> { fn f() { } }",
            ),
            ("const N: u8 = 1; trait T { fn f() { 1 } }", "const N: u8 = 1; trait T { fn f() { } }"),
            (
                "($name:ident, $x:expr) => { fn $name() -> u8 { $x } };",
                "($name:ident, $x:expr) => { fn $name() -> u8 { } };",
            ),
        ] {
            assert_eq!(outline(source), expected);
            assert_eq!(outline(expected), expected);
        }
        for kept in [
            "pub(crate) const fn length() -> usize { 4 }",
            "const extern \"C\" fn length() -> usize { 4 }",
            "pub async fn later() { 1 }",
            "fn f() -> impl Iterator<Item = u8> { [1].into_iter() }",
            "fn f() -> (u8, Option<impl Sized>) { (1, None) }",
            "const N: usize = { 3 }; type Pointer = fn(u8) -> u8; struct Point { x: fn() }",
            "extern \"C\" { fn declared(x: u8); }",
            "impl<T: [const] Eq, const N: usize> const Eq for A<T, N> where T: Copy { fn f() { 1 } }",
            "pub $(const)? fn f() -> u8 { 1 }",
            "pub const $unsafety fn f() -> u8 { 1 }",
            "$constness auto trait T { fn f() -> u8 { 1 } }",
            "fn f() $body struct S { a: u8 }",
            "fn f() $body impl S { const N: u8 = 1; }",
            "pub const auto trait T { fn f() -> u8 { 1 } }",
            "macro_rules! m { (fn $name:ident $body:block) => { const fn $name() -> u8 { 1 } }; }",
        ] {
            assert_eq!(outline(kept), kept);
        }
    }

    #[test]
    fn attributes_for_the_compiler_are_left_out() {
        for (source, expected) in [
            ("#[stable(feature = \"a\", since = \"1.0.0\")]\n#[inline] pub fn f() {}", "pub fn f() {}"),
            ("#[must_use = \"it is new\"] #[unstable] /// A.\n#[cold] fn f();", "#[unstable] /// A.\nfn f();"),
            ("#[cfg_attr(all(a, b), inline, track_caller)] #[cfg(a)] struct S;", "#[cfg(a)] struct S;"),
            ("#[diagnostic::on_unimplemented(message = \"a\")] trait T {}", "trait T {}"),
            ("const fn f() -> ! { #[inline] fn g() { 1 } g() }", "const fn f() -> ! { fn g() { } g() }"),
            (
                "macro_rules! m { (#[inline] $x:item) => { #[inline] fn f() {} n! { #[inline] $x } }; }",
                "macro_rules! m { (#[inline] $x:item) => { fn f() {} n! { #[inline] $x } }; }",
            ),
        ] {
            assert_eq!(outline(source), expected);
            assert_eq!(outline(expected), expected);
        }
        for kept in [
            "#![allow(unused)]\n#[lang = \"sized\"] #[doc(alias = \"a\")] #[derive(Clone)] struct S;",
            "#[cfg_attr(a, stable, path = \"b.rs\")] mod a;",
            "#[$stability] fn f();",
            "from!(bool => u8, #[stable(feature = \"a\", since = \"1.28.0\")]); $($name)::+!(#[inline] u8);",
            "pub macro m(#[inline] $x:item) { $x }",
            "f!{} #(inline)",
        ] {
            assert_eq!(outline(kept), kept);
        }
    }

    #[test]
    fn what_cannot_be_parsed_stays() {
        let source = "fn f() { 1 }\nfn g() { \"";
        assert_eq!(outline(source), source);
    }
}
