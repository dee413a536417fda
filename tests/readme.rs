//! The README and the guides: their code, and their links.

use std::path::{Path, PathBuf};

use crate::support::root;

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `[name]: target` lines of a Markdown text whose targets are files.
fn link_definitions(markdown: &str) -> Vec<(&str, &str)> {
    let definitions = markdown.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    definitions.filter(|(_, target)| !target.contains("://")).collect()
}

/// Every link of a Markdown text, inline or by definition, outside of code.
fn link_targets(markdown: &str) -> Vec<String> {
    let prose: Vec<&str> = markdown.split("```").step_by(2).collect();
    let prose = prose.concat();
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    inline.chain(link_definitions(&prose).into_iter().map(|(_, target)| target)).map(str::to_owned).collect()
}

/// The anchors that GitHub gives to the headings of a Markdown text.
fn anchors(markdown: &str) -> Vec<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let characters = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        characters.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

fn guides() -> Vec<PathBuf> {
    let mut guides: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE.md", "SECURITY.md", "crate/demo-model/README.md"]
            .map(Into::into)
            .into();
    let docs =
        std::fs::read_dir(root().join("docs")).unwrap().map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    guides.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    guides
}

#[test]
fn the_first_code_block_of_the_readme_is_the_doctest_of_the_prelude() {
    let readme = read("README.md");
    let code = readme.split("```rust,ignore\n").nth(1).unwrap().split("```").next().unwrap();
    let library = read("crate/src/lib.rs");
    let docs = library.lines().filter_map(|line| line.strip_prefix("/// ").or((line == "///").then_some("")));
    let docs: String = docs.map(|line| format!("{line}\n")).collect();
    assert!(!code.is_empty() && docs.contains(&format!("```\n{code}# ;\n")), "{code}");
}

#[test]
fn links_of_the_guides_lead_to_files_and_headings() {
    for guide in guides() {
        let text = read(&guide);
        let targets = link_targets(&text);
        for target in targets.iter().filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { guide.clone() } else { guide.parent().unwrap().join(file) };
            assert!(root().join(&file).exists(), "{}: {target}", guide.display());
            let found = anchor.is_empty() || anchors(&read(&file)).iter().any(|heading| heading == anchor);
            assert!(found, "{}: {target}", guide.display());
        }
    }
}

/// The README is rustdoc's front page too: each link to a file has a second definition, relative to
/// target/doc/attention_tokens.
#[test]
fn links_of_the_readme_lead_to_the_same_files_in_rustdoc() {
    let (readme, rustdoc) = (read("README.md"), read("crate/readme-links.md"));
    let moved: Vec<(&str, String)> =
        link_definitions(&readme).into_iter().map(|(name, target)| (name, format!("../../../{target}"))).collect();
    let rustdoc: Vec<(&str, String)> =
        link_definitions(&rustdoc).into_iter().map(|(name, target)| (name, target.to_owned())).collect();
    assert_eq!(moved, rustdoc);
    assert_eq!(link_targets(&readme).len(), moved.len(), "an inline link of the README is broken in rustdoc");
}

/// Each file with unsafe code, and its number of unsafe blocks, functions, traits, implementations and pieces of assembly,
/// are in the list of `docs/unsafe.md`, and nothing else is.
#[test]
fn all_unsafe_code_is_listed() {
    fn visit(folder: &Path, found: &mut Vec<(String, usize)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Copies of the sources for rust-analyzer, and what cargo compiles.
                if path.ends_with("sources") || path.ends_with("target") {
                    continue;
                }
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = read(&path);
                let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
                // In two parts, so that this list is no place.
                let unsafe_parts = ["{", "impl", "fn", "extern", "trait"].map(|part| format!("{} {part}", "unsafe"));
                let places: Vec<String> = unsafe_parts.into_iter().chain([format!("{}!(", "asm")]).collect();
                let n = code.filter(|line| places.iter().any(|place| line.contains(place.as_str()))).count();
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.extend((n > 0).then_some((name, n)));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["crate/src", "crate/examples", "crate/prebuilt", "crate/notebook", "tests", "xtask"] {
        visit(&root().join(folder), &mut found);
    }
    found.sort();
    let text = read("docs/unsafe.md");
    let mut listed: Vec<(String, usize)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(file, rest)| (file.to_owned(), rest.split(' ').next().unwrap().parse().unwrap()))
        .collect();
    listed.sort();
    assert_eq!(listed, found);
}
