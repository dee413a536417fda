//! The sources of a crate without its private methods and fields, for rust-analyzer.
//!
//! evcxr has rust-analyzer complete also what is private in crates that it reads from a folder, and a cell that uses it
//! does not compile. So rust-analyzer reads a copy in which private methods and fields are disabled.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// An attribute that is never true.
const NEVER: &str = "#[cfg(any())] ";

/// Brings the copy of a crate's sources up to date, and returns whether public items have changed in it. Only files that
/// differ are written, each at once, because another kernel may read them.
///
/// # Errors
/// A copy that would be inside of the sources, or a file that cannot be read or written.
pub(crate) fn copy(sources: &Path, to: &Path) -> Result<bool, String> {
    if to.is_symlink() {
        // Earlier versions linked the folder. What is written below must not reach the sources.
        fs::remove_file(to).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    if is_inside(to, sources) {
        return Err(format!("{} cannot be copied to {}, a folder in it", sources.display(), to.display()));
    }
    copy_folder(sources, to)
}

/// Whether a path, which need not exist, is a folder or is in it.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // The real folders, because links may lead from one to the other.
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    existing.is_some_and(|existing| folder.canonicalize().is_ok_and(|folder| existing.starts_with(folder)))
}

fn copy_folder(sources: &Path, to: &Path) -> Result<bool, String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    let (mut changed, mut names) = (false, HashSet::new());
    for entry in fs::read_dir(sources).map_err(failed(sources))? {
        let source = entry.map_err(failed(sources))?.path();
        let name = source.file_name().unwrap_or_default().to_owned();
        let copy = to.join(&name);
        if source.is_dir() {
            changed |= copy_folder(&source, &copy)?;
        } else if source.extension().is_some_and(|extension| extension == "rs") {
            let text = outline(&fs::read_to_string(&source).map_err(failed(&source))?);
            let before = fs::read_to_string(&copy).unwrap_or_default();
            if before != text || text.is_empty() {
                changed |= !public_items(&before).eq(public_items(&text));
                let unfinished = to.join(format!("{}.{}", name.to_string_lossy(), std::process::id()));
                fs::write(&unfinished, text).map_err(failed(&unfinished))?;
                fs::rename(&unfinished, &copy).map_err(failed(&copy))?;
            }
        } else {
            continue;
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to).map_err(failed(to))? {
        let copy = entry.map_err(failed(to))?.path();
        // Another kernel's unfinished file may be gone before it is removed here.
        if !names.contains(copy.file_name().unwrap_or_default()) {
            let _ = if copy.is_dir() { fs::remove_dir_all(&copy) } else { fs::remove_file(&copy) };
        }
    }
    Ok(changed)
}

/// The first lines of public items, without the values of constants.
fn public_items(source: &str) -> impl Iterator<Item = &str> {
    let items = source.lines().map(str::trim_start).filter(|line| line.starts_with("pub "));
    items.map(|line| line.split(" = ").next().unwrap_or(line))
}

/// The source of a module, as rustfmt formats it, with its private methods and fields disabled. The other lines are as
/// they were, so that rust-analyzer finds the same types and documentation in them.
fn outline(source: &str) -> String {
    /// The item that a line is in.
    #[derive(PartialEq)]
    enum Item {
        Header(String),
        Methods,
        Fields,
        Other,
    }
    let mut item = Item::Other;
    let mut outline = String::with_capacity(source.len() + source.len() / 16);
    for line in source.split_inclusive('\n') {
        let text = line.trim_end();
        let mut disabled = None;
        match &mut item {
            Item::Other if text.starts_with("impl") => item = after_header(text.to_owned()),
            Item::Other if text.contains("struct ") && is_struct(text) => {
                if text.ends_with('{') {
                    item = Item::Fields;
                } else if let Some(open) = tuple_of(text) {
                    // A tuple; one of several fields follows on lines of its own.
                    disabled = (text.ends_with(';') && !text[open..].starts_with("pub ")).then_some(open);
                } else if !text.ends_with(';') {
                    item = Item::Header(text.to_owned());
                }
            }
            Item::Header(header) => {
                header.push(' ');
                header.push_str(text);
                item = after_header(std::mem::take(header));
            }
            _ if text == "}" => item = Item::Other,
            Item::Methods
                if is_private(text, |word| matches!(word, "fn" | "const" | "unsafe" | "async" | "extern")) =>
            {
                disabled = Some(4);
            }
            Item::Fields if is_private(text, |word| word.ends_with(':')) => disabled = Some(4),
            _ => {}
        }
        let (before, after) = line.split_at(disabled.unwrap_or(0));
        outline.push_str(before);
        if disabled.is_some() {
            outline.push_str(NEVER);
        }
        outline.push_str(after);
    }
    return outline;

    /// The item whose header this is: an implementation without a trait, or a struct.
    fn after_header(header: String) -> Item {
        match header.ends_with('{') {
            false if header.ends_with('}') || header.ends_with(';') => Item::Other,
            false => Item::Header(header),
            true if header.starts_with("impl") && header.contains(" for ") => Item::Other,
            true if header.starts_with("impl") => Item::Methods,
            true => Item::Fields,
        }
    }
}

/// Where the fields of a tuple struct begin, in the line that begins it.
fn tuple_of(text: &str) -> Option<usize> {
    let name = text.find("struct ")? + "struct ".len();
    let mut depth = 0;
    for (place, character) in text.char_indices().skip_while(|&(place, _)| place < name) {
        match character {
            '<' => depth += 1,
            '>' => depth -= 1,
            '(' if depth == 0 => return Some(place + 1),
            _ => {}
        }
    }
    None
}

/// Whether a line at the left margin begins a struct.
fn is_struct(text: &str) -> bool {
    let text = match text.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
        Some((_, rest)) => rest,
        None => text.strip_prefix("pub ").unwrap_or(text),
    };
    text.starts_with("struct ")
}

/// Whether a line of an item begins a private method or field: its indentation is that of the item, it is not public
/// everywhere, and the first word after its visibility is one that is `wanted`.
fn is_private(text: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let Some(text) = text.strip_prefix("    ") else { return false };
    let text = match text.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
        Some((_, rest)) => rest,
        None => text,
    };
    text.split(' ').next().is_some_and(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_methods_and_fields_are_disabled_and_nothing_else() {
        let source = r#"//! A module.
pub struct Gpt2(pub(super) Arc<Inner>);
pub struct Open(pub f32);
pub(in crate::a) struct Kept<F: Fn(u8) -> u8>(pub F);
pub(in crate::a) struct Closed<F: Fn(u8)>(pub(crate) F);
pub struct Unit;
struct Inner {
    /// A comment.
    config: Config,
    pub name: String,
    pub(super) device:
        Device,
}

pub struct Long<T>
where
    T: Copy,
{
    x: T,
}

impl Gpt2 {
    const N: usize = 1;
    /// Documentation.
    pub fn name(&self) -> &str {
        fn inner() {}
        self.x
    }

    pub(crate) fn engine(&self) {}
    #[inline]
    async fn later(
        &self,
    ) {
    }
}

impl<T> Long<T>
where
    T: for<'a> Fn(&'a T),
{
    fn of() {}
}

impl fmt::Debug for Gpt2 {
    fn fmt(&self) {}
}

fn free() {
    let y = Point {
        x: 1,
    };
}
"#;
        let expected = source
            .replace("Gpt2(pub(super)", "Gpt2(#[cfg(any())] pub(super)")
            .replace("Closed<F: Fn(u8)>(pub", "Closed<F: Fn(u8)>(#[cfg(any())] pub")
            .replace("    config", "    #[cfg(any())] config")
            .replace("    pub(super) device", "    #[cfg(any())] pub(super) device")
            .replace("    x: T", "    #[cfg(any())] x: T")
            .replace("    const N", "    #[cfg(any())] const N")
            .replace("    pub(crate) fn", "    #[cfg(any())] pub(crate) fn")
            .replace("    async fn", "    #[cfg(any())] async fn")
            .replace("    fn of", "    #[cfg(any())] fn of");
        assert_eq!(outline(source), expected);
    }

    #[test]
    fn a_copy_inside_of_its_sources_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sources = folder.path().join("src");
        fs::create_dir_all(&sources).unwrap();
        fs::write(sources.join("lib.rs"), "").unwrap();
        for to in [sources.clone(), sources.join("a/b"), folder.path().join("src/../src/a")] {
            let error = copy(&sources, &to).unwrap_err();
            assert!(error.contains("a folder in it"), "{error}");
        }
        assert_eq!(fs::read_dir(&sources).unwrap().count(), 1);
        copy(&sources, &folder.path().join("src-copy/a")).unwrap();
    }

    #[test]
    fn a_copy_follows_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let (sources, to) = (folder.path().join("src"), folder.path().join("copy"));
        fs::create_dir_all(sources.join("a")).unwrap();
        fs::write(sources.join("lib.rs"), "pub mod a;\n").unwrap();
        fs::write(sources.join("a/mod.rs"), "impl A {\n    fn f() {}\n}\n").unwrap();
        fs::write(sources.join("a/data.bin"), [255]).unwrap();
        // Earlier versions linked the folder.
        #[cfg(unix)]
        std::os::unix::fs::symlink(&sources, &to).unwrap();
        assert!(copy(&sources, &to).unwrap());
        assert!(!to.is_symlink());
        assert_eq!(fs::read_to_string(to.join("a/mod.rs")).unwrap(), "impl A {\n    #[cfg(any())] fn f() {}\n}\n");
        assert_eq!(fs::read_to_string(sources.join("a/mod.rs")).unwrap(), "impl A {\n    fn f() {}\n}\n");
        for (text, changed) in [
            ("impl A {\n    pub fn f() {}\n}\npub const N: u8 = 1;\n", true),
            ("impl A {\n    pub fn f() {}\n}\npub const N: u8 = 2;\n", false),
            ("impl A {\n    pub fn g() {}\n}\npub const N: u8 = 2;\n", true),
            ("impl A {\n    pub fn g() {}\n}\npub const N: u8 = 2;\n", false),
        ] {
            fs::write(sources.join("a/mod.rs"), text).unwrap();
            assert_eq!(copy(&sources, &to).unwrap(), changed, "{text}");
            assert_eq!(fs::read_to_string(to.join("a/mod.rs")).unwrap(), text);
        }
        fs::remove_dir_all(sources.join("a")).unwrap();
        copy(&sources, &to).unwrap();
        assert!(!to.join("a").exists() && to.join("lib.rs").exists());
    }
}
