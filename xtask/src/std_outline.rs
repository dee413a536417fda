//! The standard library's sources as rust-analyzer reads them: without comments and the bodies of functions.
//!
//! rust-analyzer reads the sources when a kernel starts, when a dependency is added, and for the first variable. It looks for types in
//! them, and a body says nothing about types, except where an `impl Trait` or the length of an array depends on it. Without
//! bodies, a notebook opens half a second sooner. Documentation stays: evcxr shows it. More than half of the sources is `core_arch`, the
//! instructions of processors (`std::arch`): without it, a notebook opens almost two seconds sooner. evcxr then asks for the
//! type of a variable such as `let x = unsafe { std::arch::x86_64::_mm_setzero_ps() };`.

use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::tool::Result;

/// Folders of packages that rust-analyzer does not need.
const LEFT_OUT: [&str; 3] = ["benches", "core_arch", "tests"];

/// The folder `to` with the outlines of the sources in `library`, made anew if a source has changed.
pub(crate) fn up_to_date(library: &Path, to: &Path) -> Result<PathBuf> {
    if library == to {
        return Ok(library.to_owned()); // Where a kernel's `RUST_SRC_PATH` is inherited.
    }
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let mut files = Vec::new();
    find(library, Path::new(""), &mut files).map_err(|error| failed(library, error))?;
    files.sort();
    // Another version of this file may leave out something else.
    let mut version = DefaultHasher::new();
    version.write(include_bytes!("std_outline.rs"));
    let mut wanted = format!("{:x}\n{}\n", version.finish(), library.display());
    for Source { path, len, changed } in &files {
        let changed = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        writeln!(wanted, "{} {len} {}", path.display(), changed.as_nanos())?;
    }
    let stamp = to.with_extension("txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && to.is_dir() {
        return Ok(to.to_owned());
    }
    // First, so that an interrupted call is repeated.
    let _ = fs::remove_file(&stamp);
    if to.exists() {
        fs::remove_dir_all(to).map_err(|error| failed(to, error))?;
    }
    for Source { path, .. } in &files {
        let (source, copy) = (library.join(path), to.join(path));
        let text = fs::read_to_string(&source).map_err(|error| failed(&source, error))?;
        let text = if path.extension().is_some_and(|extension| extension == "rs") { outline(&text) } else { text };
        let written = fs::create_dir_all(copy.parent().unwrap_or(to)).and_then(|()| fs::write(&copy, text));
        written.map_err(|error| failed(&copy, error))?;
    }
    fs::write(&stamp, wanted).map_err(|error| failed(&stamp, error))?;
    Ok(to.to_owned())
}

/// A file of the sources.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// Relative to the folder of all sources.
    path: PathBuf,
    len: u64,
    changed: SystemTime,
}

/// Finds the files that rust-analyzer and cargo read in a folder of `library`.
fn find(library: &Path, folder: &Path, files: &mut Vec<Source>) -> std::io::Result<()> {
    for entry in fs::read_dir(library.join(folder))? {
        let name = entry?.file_name();
        let path = folder.join(&name);
        let metadata = fs::metadata(library.join(&path))?;
        if metadata.is_dir() {
            // Modules may have such names.
            let is_module = folder.iter().any(|parent| parent == "src");
            if is_module || LEFT_OUT.iter().all(|&left_out| name != left_out) {
                find(library, &path, files)?;
            }
        } else if name == "Cargo.toml" || name == "Cargo.lock" || path.extension().is_some_and(|found| found == "rs") {
            files.push(Source { path, len: metadata.len(), changed: metadata.modified()? });
        }
    }
    Ok(())
}

/// A source file with `{}` for the bodies of its functions, and without comments other than documentation. Bodies of
/// functions that are `const` or `async` or return an `impl Trait` stay, because types can depend on them.
fn outline(source: &str) -> String {
    let Ok(tokens) = source.parse::<TokenStream>() else {
        return source.to_owned(); // It has syntax that only the newest compilers know.
    };
    let mut kept = Vec::new();
    find_kept(tokens, false, &mut kept);
    let (mut outline, mut end) = (String::with_capacity(source.len()), 0);
    for token in kept {
        // All tokens that a documenting comment becomes have its place.
        let Some(between) = source.get(end..token.start) else { continue };
        outline.push_str(match between {
            "" => "",
            between if between.contains('\n') => "\n",
            _ => " ",
        });
        outline.push_str(&source[token.clone()]);
        end = token.end;
    }
    proc_macro2::extra::invalidate_current_thread_spans(); // which would keep the sources in memory
    outline
}

/// Finds the tokens of an outline: their bytes in the source, in order. With `all`, bodies are kept.
fn find_kept(tokens: TokenStream, all: bool, kept: &mut Vec<Range<usize>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let (mut body, mut constant) = (None, None);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                kept.push(group.span_open().byte_range());
                if all || body != Some(at) {
                    find_kept(group.stream(), all || constant == Some(at), kept);
                }
                kept.push(group.span_close().byte_range());
                continue;
            }
            TokenTree::Ident(word) if word == "fn" => body = find_body(&tokens, at).or(body),
            TokenTree::Ident(word) if word == "impl" || word == "trait" => {
                constant = find_constant(&tokens, at).or(constant);
            }
            _ => {}
        }
        kept.push(token.span().byte_range());
    }
}

/// Where the body is of the function whose `fn` is at an index, if it can be left out.
fn find_body(tokens: &[TokenTree], at: usize) -> Option<usize> {
    match tokens.get(at + 1)? {
        TokenTree::Ident(_) => {}
        TokenTree::Punct(dollar) if dollar.as_char() == '$' => {} // a name from a macro
        _ => return None,                                         // a type
    }
    let signature = before_block(&tokens[at + 1..])?;
    let is_kept = is_qualified(&tokens[..at], &["const", "async"]) || returns_impl(signature);
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
    let is_constant = outside.next().is_some() || is_qualified(&tokens[..at], &["const"]);
    is_constant.then_some(at + header.len())
}

/// Whether one of the `words` is among those directly before an item's keyword.
fn is_qualified(before: &[TokenTree], words: &[&str]) -> bool {
    let qualifiers = before.iter().rev().map_while(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        TokenTree::Literal(interface) => Some(interface.to_string()), // of a foreign function
        _ => None,
    });
    qualifiers.into_iter().any(|qualifier| words.contains(&qualifier.as_str()))
}

/// The tokens before an item's block. The declaration of a method has none.
fn before_block(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    // The braces in `Array<{ N }>` are no block.
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        depth = depth_after(tokens, at, depth);
        match token {
            TokenTree::Punct(mark) if mark.as_char() == ';' => return None,
            TokenTree::Group(group) if depth == 0 && group.delimiter() == Delimiter::Brace => {
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
    let is = |at: usize, wanted| matches!(&tokens[at], TokenTree::Punct(mark) if mark.as_char() == wanted);
    at > 0 && is(at - 1, '-') && is(at, '>')
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
            (
                "unsafe extern \"C\" fn f(_: fn(u8) -> u8) -> u8 { 1 }",
                "unsafe extern \"C\" fn f(_: fn(u8) -> u8) -> u8 { }",
            ),
            (
                "impl<'a> T for P {\n    fn f(&self) -> &'a str { \"é\" }\n    fn r#fn() { 1 }\n}",
                "impl<'a> T for P {\nfn f(&self) -> &'a str { }\nfn r#fn() { }\n}",
            ),
            (
                "trait T { fn f(&self) -> u8; fn g(&self) -> u8 { 1 } }",
                "trait T { fn f(&self) -> u8; fn g(&self) -> u8 { } }",
            ),
            ("mod a { fn f() { fn g() {} } }", "mod a { fn f() { } }"),
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
            "const unsafe extern \"C\" fn length() -> usize { 4 }",
            "pub async fn later() { 1 }",
            "fn f() -> impl Iterator<Item = u8> { [1].into_iter() }",
            "fn f() -> (u8, Option<impl Sized>) { (1, None) }",
            "const N: usize = { 3 }; type Pointer = fn(u8) -> u8; struct Point { x: fn() }",
            "extern \"C\" { fn declared(x: u8); }",
            "impl<T: [const] Eq, const N: usize> const Eq for A<T, N> where T: Copy { fn f() { 1 } }",
            "pub const unsafe trait T { fn f() -> u8 { 1 } }",
            "macro_rules! m { (fn $name:ident $body:block) => { const fn $name() -> u8 { 1 } }; }",
        ] {
            assert_eq!(outline(kept), kept);
        }
    }

    #[test]
    fn what_cannot_be_parsed_stays() {
        let source = "fn f() { 1 }\nfn g() { \"";
        assert_eq!(outline(source), source);
    }

    #[test]
    fn sources_are_copied_without_tests_and_instructions_and_follow_another_toolchain() {
        let folder = tempfile::tempdir().unwrap();
        let outlines = folder.path().join("share/library");
        for toolchain in ["1.94", "1.95"] {
            let library = folder.path().join(toolchain).join("library");
            for file in [
                "Cargo.lock",
                "Cargo.toml",
                "std/Cargo.toml",
                "std/README.md",
                "std/src/lib.rs",
                "std/src/tests/mod.rs",
                "std/tests/a.rs",
                "core/src/lib.rs",
                "core/benches/b.rs",
                "stdarch/crates/core_arch/src/mod.rs",
                "stdarch/crates/std_detect/src/lib.rs",
                "stdarch/crates/std_detect/tests/c.rs",
            ] {
                fs::create_dir_all(library.join(file).parent().unwrap()).unwrap();
                fs::write(library.join(file), format!("/// {toolchain}\nfn f() {{ 1 }}\n")).unwrap();
            }
            for _ in 0..2 {
                assert_eq!(up_to_date(&library, &outlines).unwrap(), outlines);
            }
            for copied in ["std/src/lib.rs", "std/src/tests/mod.rs", "stdarch/crates/std_detect/src/lib.rs"] {
                let text = fs::read_to_string(outlines.join(copied)).unwrap();
                assert_eq!(text, format!("/// {toolchain}\nfn f() {{ }}"), "{copied}");
            }
            let lock = fs::read_to_string(outlines.join("Cargo.lock")).unwrap();
            assert_eq!(lock, format!("/// {toolchain}\nfn f() {{ 1 }}\n"));
            for left_out in [
                "std/README.md",
                "std/tests",
                "core/benches",
                "stdarch/crates/core_arch",
                "stdarch/crates/std_detect/tests",
            ] {
                assert!(!outlines.join(left_out).exists(), "{left_out}");
            }
            assert_eq!(up_to_date(&outlines, &outlines).unwrap(), outlines);
        }
        // A toolchain that is updated in its place.
        let library = folder.path().join("1.95/library");
        fs::write(library.join("core/src/lib.rs"), "mod updated;").unwrap();
        up_to_date(&library, &outlines).unwrap();
        assert_eq!(fs::read_to_string(outlines.join("core/src/lib.rs")).unwrap(), "mod updated;");
        // An interrupted call is repeated.
        fs::remove_file(outlines.with_extension("txt")).unwrap();
        fs::write(outlines.join("core/src/lib.rs"), "").unwrap();
        up_to_date(&library, &outlines).unwrap();
        assert_eq!(fs::read_to_string(outlines.join("core/src/lib.rs")).unwrap(), "mod updated;");
    }
}
