//! Every kind of file that the project writes, each in two variants; and a process that does nothing but write one.

use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::experiments::*;
use attention_tokens::notebook::*;
use attention_tokens::prelude::*;
use attention_tokens::write_npz;

/// What the process writes, in which variant, and where: `KIND VARIANT PATH`, `VARIANT` being 0, 1, or `both` for one after
/// the other, for ever.
const WRITE: &str = "ATTENTION_TOKENS_TEST_WRITE";

/// The line after which the process writes.
pub(super) const READY: &str = "now writing";

const PROMPTS: [&str; 2] = ["a b c d a b c d e f", "k l m k l m k l m k l m k l m"];

/// The small model, which loads at once.
pub(super) fn letters() -> Gpt2 {
    Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap()
}

/// The files of a variant.
pub(super) struct Writer {
    model: Gpt2,
    run: PromptRun,
    figure: Figure,
    receipt: Receipt,
    counts: VocabularyCounts,
    words: Concordance,
}

type Write = fn(&Writer, &Path) -> Result<(), Error>;

/// The names of the files, and what writes them. The last one is a folder.
pub(super) const KINDS: [(&str, Write); 13] = [
    ("figure.html", |it, path| it.figure.write_html(path)),
    ("figure.svg", |it, path| it.figure.write_svg(path)),
    ("figure.json", |it, path| it.figure.write_json(path)),
    ("figure.png", |it, path| it.figure.write_png(path)),
    ("cache.safetensors", |it, path| it.run.cache.write_safetensors(&it.model, path)),
    ("arrays.npz", |it, path| {
        write_npz(path, &[("w_o", it.model.w_o(0, it.counts.n_prompts() as usize % 2)?.into_dyn())])
    }),
    ("heads.csv", |it, path| calculate_attns(&it.run, 0, 1)?.write_csv(path)),
    ("heads.npz", |it, path| calculate_attns(&it.run, 0, 1)?.write_npz(path)),
    ("receipt.csv", |it, path| it.receipt.write_csv(path)),
    ("counts.csv", |it, path| it.counts.write_csv(path)),
    ("counts.parquet", |it, path| it.counts.write_parquet(path)),
    ("counts", |it, path| it.counts.save(path)),
    ("pages", |it, path| it.words.write_pages(path)),
];

impl Writer {
    pub(super) fn new(variant: usize) -> Self {
        let model = letters();
        let prompt = PROMPTS[variant];
        let run = run_prompts(&model, prompt).unwrap();
        let figure = plot_head(&calculate_attns(&run, 0, 1).unwrap().prompt(0).unwrap());
        let receipt = receipt(&model, prompt, [30, 31], ReceiptOptions::default()).unwrap();
        let mut counts = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
        counts.add(&model, PROMPTS[..=variant].iter().map(|&text| text.to_owned()).collect::<Vec<String>>()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.txt");
        std::fs::write(&file, prompt).unwrap();
        let words = concordance(&model, &[file], &ConcordanceOptions::default(), &mut |_| ()).unwrap();
        Self { model, run, figure, receipt, counts, words }
    }

    pub(super) fn write(&self, kind: &str, path: &Path) -> Result<(), Error> {
        let (_, write) = KINDS.iter().find(|(name, _)| *name == kind).unwrap();
        write(self, path)
    }

    /// What is to be compared of a file: its bytes; of a state, whose metadata have no fixed order, what it counts; of a
    /// folder, its first page.
    pub(super) fn contents(&self, path: &Path) -> Result<Vec<u8>, String> {
        if path.ends_with("counts") {
            let counts = VocabularyCounts::load(path, &self.counts).map_err(|error| error.to_string())?;
            let folder = tempfile::tempdir().unwrap();
            counts.write_csv(folder.path().join("csv")).map_err(|error| error.to_string())?;
            return Ok(std::fs::read(folder.path().join("csv")).unwrap());
        }
        std::fs::read(compared(path)).map_err(|error| error.to_string())
    }
}

/// The file that is compared of what is written to a path.
pub(super) fn compared(path: &Path) -> PathBuf {
    if path.ends_with("pages") { path.join("head-0-0.html") } else { path.to_owned() }
}

/// The kind that is a sweep over `prompts.txt` in a folder, with many saves, whose state has the name of the variant, and which
/// is written as a table and as Parquet at its end.
pub(super) const SWEEP: &str = "sweep";

fn sweep(folder: &Path, state: &str) {
    let model = letters();
    let path = folder.join(state);
    let options = SweepOptions {
        max_tokens: 6,
        batch_tokens: 24,
        save_every: std::time::Duration::ZERO,
        state: Some(path.clone()),
        ..Default::default()
    };
    let counts = count_file(&model, folder.join("prompts.txt"), &options, &mut |_| ()).unwrap();
    counts.write_csv(path.with_extension("csv")).unwrap();
    counts.write_parquet(path.with_extension("parquet")).unwrap();
}

/// A process that writes.
pub(super) fn process(kind: &str, variant: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--include-ignored", "faults::writers::write_what_the_environment_says"]);
    command.env(WRITE, format!("{kind} {variant} {}", path.display()));
    command
}

/// The process of [`process`]; without that variable, each kind is written once and read.
#[test]
fn write_what_the_environment_says() {
    let Ok(wanted) = std::env::var(WRITE) else {
        let (folder, writer) = (tempfile::tempdir().unwrap(), Writer::new(0));
        for (kind, _) in KINDS {
            let paths = ["a", "b"].map(|name| folder.path().join(name).join(kind));
            let written: Vec<Vec<u8>> = paths
                .iter()
                .map(|path| {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    writer.write(kind, path).unwrap();
                    writer.contents(path).unwrap()
                })
                .collect();
            assert!(written[0].len() > 600 && written[0] == written[1], "{kind} is the same each time");
        }
        return;
    };
    let mut words = wanted.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (kind, variant, path) = (word(), word(), PathBuf::from(word()));
    if kind == SWEEP {
        return sweep(&path, variant);
    }
    if let Ok(variant) = variant.parse() {
        let writer = Writer::new(variant);
        println!("{READY}");
        match writer.write(kind, &path) {
            Ok(()) => println!("written"),
            Err(error) => println!("error: {error}"),
        }
        return;
    }
    let writers = [0, 1].map(Writer::new);
    println!("{READY}");
    for writer in writers.iter().cycle() {
        writer.write(kind, &path).unwrap();
    }
}
