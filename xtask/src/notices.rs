//! `crate/THIRD-PARTY.txt`: what the compiled library is made of, with the texts of the licences, from the crates themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xshell::cmd;

use crate::tool::{Result, shell};

const FILE: &str = "crate/THIRD-PARTY.txt";

/// The systems whose crates are listed.
const TARGETS: [&str; 8] = [
    "--target",
    "x86_64-unknown-linux-gnu",
    "--target",
    "aarch64-unknown-linux-gnu",
    "--target",
    "aarch64-apple-darwin",
    "--target",
    "x86_64-pc-windows-msvc",
];

/// Name, version and origin of a package, for `cargo tree`.
const FORMAT: &str = "{p}";

/// How names of files with licences, and with the names of their holders, begin.
const LICENCE_FILES: [&str; 7] = ["license", "licence", "copying", "copyright", "notice", "unlicense", "authors"];

const INTRODUCTION: &str = "\
Third-party notices of attention-tokens

The compiled library that notebooks load has code and data of the packages below. Each is listed with its licence and its
source; the texts follow, each once, with the packages whose text it is and the holders that their copies name. The list
is of the features `full`, `cuda` and `png`, for Linux, macOS and Windows. Packages that only take part in compiling are not in it.
Rust's standard library, which is linked to it, is under MIT OR Apache-2.0. Written by `cargo xtask notices`.

The vocabulary of GPT-2 and the models that ship with the library are read from files: see NOTICE.md.
";

/// What packages have in them and do not list: in the package `plotly`, which puts both files into the library.
const EMBEDDED: [(&str, &str, &str); 2] = [
    (
        "resource/plotly.min.js",
        "plotly.js, which exported pages contain; its bundle has code of the packages that its repository lists",
        "MIT",
    ),
    ("resource/tex-svg-3.2.2.js", "MathJax 3.2.2, which no figure uses", "Apache-2.0"),
];

/// A package of the library.
struct Package {
    /// `name version`.
    name: String,
    license: String,
    repository: String,
    /// Names and texts of its licences.
    texts: Vec<(String, String)>,
}

/// A text without the lines that name its holders, and the packages that have it.
#[derive(Default)]
struct Text {
    body: String,
    packages: Vec<String>,
    holders: BTreeSet<String>,
}

/// Writes the file.
pub(crate) fn write() -> Result<()> {
    let path = crate::root().join(FILE);
    fs::write(&path, text()?).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{FILE} is written");
    Ok(())
}

/// Checks that the file is that of the dependencies in `Cargo.lock`.
pub(crate) fn check() -> Result<()> {
    let found = fs::read_to_string(crate::root().join(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
    let expected = text()?;
    if found == expected {
        return Ok(());
    }
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    let (found, expected) = differs.unwrap_or(("the end of the file", "another length"));
    Err(format!("{FILE} is out of date: it has {found:?}, expected {expected:?}; `cargo xtask notices` writes it")
        .into())
}

fn text() -> Result<String> {
    let packages = packages()?;
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n== Packages\n\n");
    for package in &packages {
        writeln!(text, "{}: {}; {}", package.name, package.license, package.repository)?;
    }
    for (number, licence) in grouped(&packages).iter().enumerate() {
        write!(text, "\n== Text {}, of {}\n\n", number + 1, licence.packages.join(", "))?;
        for holder in &licence.holders {
            writeln!(text, "{holder}")?;
        }
        writeln!(text, "\n{}", licence.body.trim_matches('\n'))?;
    }
    Ok(text)
}

/// The packages that are linked into the library, by name and version.
fn packages() -> Result<Vec<Package>> {
    let shell = shell()?;
    let tree = cmd!(
        shell,
        "cargo tree --locked --package attention-tokens --features full,cuda,png --edges normal,no-proc-macro --prefix none
         --format {FORMAT} {TARGETS...}"
    );
    let tree = tree.quiet().read()?;
    // `name v1.0.0`, ` (/path)` of the library itself, ` (*)` where it was listed before.
    let linked = tree.lines().filter(|line| !line.contains('/')).filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some((name, rest.split(' ').next()?))
    });
    let linked: BTreeSet<(&str, &str)> = linked.collect();

    let metadata = cmd!(shell, "cargo metadata --locked --format-version 1 --all-features").quiet().read()?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let known = metadata["packages"].as_array().into_iter().flatten().map(|package| {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        ((text("name"), text("version")), package)
    });
    let known: BTreeMap<(&str, &str), &Value> = known.collect();
    let package_of = |id: &(&str, &str)| match known.get(id) {
        Some(metadata) => package(metadata),
        None => Err(format!("cargo metadata has no {} {}", id.0, id.1).into()),
    };
    linked.iter().map(package_of).collect()
}

fn package(metadata: &Value) -> Result<Package> {
    let text = |key: &str| metadata[key].as_str().unwrap_or_default();
    let (name, license) = (format!("{} {}", text("name"), text("version")), text("license"));
    let folder = Path::new(text("manifest_path")).parent().unwrap_or(Path::new("/"));
    let mut texts = Vec::new();
    add_texts(folder, &name, &mut texts)?;
    // Sources that a package has from others.
    for part in ["src", "third_party"] {
        add_texts_below(&folder.join(part), &format!("{name} ({part})"), &mut texts)?;
    }
    if texts.is_empty() {
        let authors = metadata["authors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let holders: Vec<&str> = authors.collect();
        let holders = if holders.is_empty() { format!("the authors of {name}") } else { holders.join(", ") };
        texts.push((name.clone(), standard(license, &name, &format!("Copyright (c) {holders}"))?));
    }
    if text("name") == "plotly" {
        for (file, what, license) in EMBEDDED {
            let text = fs::read_to_string(folder.join(file)).map_err(|error| format!("{name}: {file}: {error}"))?;
            let heading = text.lines().take(4).find(|line| line.contains("Copyright"));
            let heading = heading.map_or("", |line| line.trim_start_matches([' ', '*']));
            texts.push((format!("{name} ({what})"), standard(license, what, heading)?));
        }
    }
    let repository = if text("repository").is_empty() { "crates.io" } else { text("repository") };
    Ok(Package { license: license.replace('/', " OR "), repository: repository.into(), name, texts })
}

/// Adds the texts in a folder.
fn add_texts(folder: &Path, name: &str, texts: &mut Vec<(String, String)>) -> Result<()> {
    for file in sorted(folder)? {
        let lower = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_source = lower.ends_with(".rs");
        if !is_source && LICENCE_FILES.iter().any(|start| lower.starts_with(start)) && file.is_file() {
            let text = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            texts.push((name.to_owned(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Ok(())
}

/// Adds the texts in a folder, if there is one, and in those below it.
fn add_texts_below(folder: &Path, name: &str, texts: &mut Vec<(String, String)>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    add_texts(folder, name, texts)?;
    sorted(folder)?.iter().filter(|path| path.is_dir()).try_for_each(|path| add_texts_below(path, name, texts))
}

/// The paths in a folder, in an order that is the same everywhere.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The standard text of a licence, for a package that comes without.
fn standard(license: &str, name: &str, holders: &str) -> Result<String> {
    let allowed: Vec<&str> = license.split([' ', '/']).collect();
    let file = match ["MIT", "Apache-2.0"].into_iter().find(|license| allowed.contains(license)) {
        Some("MIT") => "LICENSE-MIT",
        Some(_) => "LICENSE-APACHE",
        None => return Err(format!("{name}: no text of its licence {license}").into()),
    };
    let text = fs::read_to_string(crate::root().join(file)).map_err(|error| format!("{file}: {error}"))?;
    let body: Vec<&str> = text.lines().filter(|line| !names_holder(line)).collect();
    Ok(format!("{holders}\n{}", body.join("\n")))
}

/// Whether a line of a licence names a holder: all other lines of most licences are equal.
fn names_holder(line: &str) -> bool {
    let line = line.trim_start_matches(['/', '*', ' ']);
    let rest = line.strip_prefix("Copyright").map(str::trim_start).unwrap_or_default();
    let digit = |text: &str| text.trim_start().starts_with(|first: char| first.is_ascii_digit());
    ["(c)", "(C)", "©"].iter().any(|sign| rest.starts_with(sign) || line.strip_prefix(sign).is_some_and(digit))
        || digit(rest)
}

/// The texts, each once, in the order of the packages.
fn grouped(packages: &[Package]) -> Vec<Text> {
    let mut places = BTreeMap::new();
    let mut texts: Vec<Text> = Vec::new();
    for (name, text) in packages.iter().flat_map(|package| &package.texts) {
        let (holders, body): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| names_holder(line));
        let body = body.join("\n");
        let words = body.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
        let key = words.collect::<Vec<_>>().join(" ").to_lowercase();
        let place = *places.entry(key).or_insert(texts.len());
        if place == texts.len() {
            texts.push(Text { body, ..Text::default() });
        }
        let group = &mut texts[place];
        if !group.packages.contains(name) {
            group.packages.push(name.clone());
        }
        group.holders.extend(holders.into_iter().map(|line| line.trim().to_owned()));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_holders_are_told_from_the_text() {
        for line in [
            "Copyright (c) 2015 A. Person",
            "  Copyright 2019 The Authors.",
            "(C) 2019 B",
            "// Copyright © 2020 C",
            "© 2021 D",
        ] {
            assert!(names_holder(line), "{line}");
        }
        for line in [
            "   (c) You must retain, in the Source form",
            "copyright license to reproduce",
            "The above copyright notice and this permission notice",
            "Copyright [yyyy] [name of copyright owner]",
        ] {
            assert!(!names_holder(line), "{line}");
        }
    }

    #[test]
    fn equal_texts_are_one_with_all_holders() {
        let package = |name: &str, text: &str| Package {
            name: name.into(),
            license: String::new(),
            repository: String::new(),
            texts: vec![(name.into(), text.into())],
        };
        let packages = [
            package("a 1.0.0", "Copyright (c) 2015 A\n\nPermission is\nhereby granted"),
            package("b 1.0.0", "Copyright (c) 2016 B\nPermission  is hereby\r\ngranted\n"),
            package("c 1.0.0", "Permission is not granted"),
        ];
        let texts = grouped(&packages);
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0].packages, ["a 1.0.0", "b 1.0.0"]);
        assert_eq!(texts[0].holders.iter().collect::<Vec<_>>(), ["Copyright (c) 2015 A", "Copyright (c) 2016 B"]);
        assert_eq!(texts[0].body, "\nPermission is\nhereby granted");
    }

    #[test]
    fn a_package_without_a_text_has_the_standard_one() {
        let text = standard("Apache-2.0/MIT", "a", "Copyright (c) A").unwrap();
        assert!(text.starts_with("Copyright (c) A\n") && text.contains("Permission is hereby granted"), "{text}");
        assert!(!text.contains("attention-tokens developers"), "our own line is not theirs");
        assert!(standard("Apache-2.0", "a", "").unwrap().contains("TERMS AND CONDITIONS"));
        assert!(standard("MPL-2.0", "a", "").unwrap_err().to_string().contains("a: no text of its licence MPL-2.0"));
    }
}
