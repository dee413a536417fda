//! Which pages of executed notebooks are up to date, so that a second run executes only what has changed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::setup::Jupyter;
use crate::tool::Result;
use crate::{kernel, release, root};

/// What an executed notebook depends on: its text, the library, the kernel, and what executes and draws it.
pub(crate) struct Inputs {
    programs: u64,
}

impl Inputs {
    /// The library, the kernel and the Python side as they are now.
    pub(crate) fn now(jupyter: &Jupyter) -> Self {
        let mut hasher = DefaultHasher::new();
        for program in [release::library(), kernel::known(jupyter)] {
            let metadata = program.as_ref().and_then(|program| fs::metadata(program).ok());
            (program, metadata.map(|metadata| (metadata.len(), metadata.modified().ok()))).hash(&mut hasher);
        }
        for file in ["requirements.txt", "xtask/src/execute.py"] {
            fs::read(root().join(file)).ok().hash(&mut hasher);
        }
        Self { programs: hasher.finish() }
    }

    /// Whether a page was made from this notebook and these inputs.
    pub(crate) fn made(&self, notebook: &Path, page: &Path) -> bool {
        page.is_file() && fs::read_to_string(record(page)).is_ok_and(|record| Some(record) == self.of(notebook))
    }

    /// Notes that a page was made from the notebook as it is now and these inputs.
    pub(crate) fn remember(&self, notebook: &Path, page: &Path) -> Result<()> {
        Ok(fs::write(record(page), self.of(notebook).ok_or("the notebook cannot be read")?)?)
    }

    fn of(&self, notebook: &Path) -> Option<String> {
        let mut hasher = DefaultHasher::new();
        (self.programs, notebook, fs::read(notebook).ok()?).hash(&mut hasher);
        Some(format!("{:016x}\n", hasher.finish()))
    }
}

fn record(page: &Path) -> PathBuf {
    page.with_extension("made-from")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_made_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let [notebook, page] = ["a.ipynb", "pages.html"].map(|name| folder.path().join(name));
        fs::write(&notebook, "one").unwrap();
        let inputs = Inputs { programs: 1 };
        assert!(!inputs.made(&notebook, &page), "never executed");
        inputs.remember(&notebook, &page).unwrap();
        assert!(!inputs.made(&notebook, &page), "there is no page");
        fs::write(&page, "page").unwrap();
        assert!(inputs.made(&notebook, &page));
        assert!(!Inputs { programs: 2 }.made(&notebook, &page), "another library");
        fs::write(&notebook, "two").unwrap();
        assert!(!inputs.made(&notebook, &page), "another text");
        fs::remove_file(&notebook).unwrap();
        assert!(!inputs.made(&notebook, &page) && inputs.remember(&notebook, &page).is_err());
    }
}
