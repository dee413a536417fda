//! Python packages, pinned with the hashes of their files: what pip installs, in full. `cargo xtask pin` writes the files.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::environment::pip_requirements;
use crate::tool::{Result, command_line};
use crate::{cluster, cuda, programs};

/// A file of pinned packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pins {
    /// The set-up's: what `environment.yml` pins, with all that these packages need.
    Environment,
    /// Programs of other projects that checks start.
    Programs,
    /// NVIDIA's compilers, for `cuda-check`.
    Cuda,
    /// What the tests of the cluster package need.
    Cluster,
}

impl Pins {
    const ALL: [Self; 4] = [Self::Environment, Self::Programs, Self::Cuda, Self::Cluster];

    /// The file, from the top of the repository.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Environment => "requirements.txt",
            Self::Programs => "xtask/programs.txt",
            Self::Cuda => "xtask/cuda.txt",
            Self::Cluster => "crate/examples/cluster/requirements.txt",
        }
    }

    /// Where the packages are named that the file is made of.
    fn source(self) -> &'static str {
        match self {
            Self::Environment => "environment.yml",
            Self::Programs => "xtask/src/programs.rs",
            Self::Cuda => "xtask/src/cuda.rs",
            Self::Cluster => "xtask/src/cluster.rs",
        }
    }

    /// The packages that the file is made of, as `name==version`.
    fn wanted(self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Environment => {
                let file = self.source();
                let text = fs::read_to_string(crate::root().join(file)).map_err(|error| format!("{file}: {error}"))?;
                pip_requirements(&text).map_err(|error| format!("{file}: {error}"))?
            }
            Self::Programs => programs::PACKAGES.map(String::from).to_vec(),
            Self::Cuda => cuda::PACKAGES.map(String::from).to_vec(),
            Self::Cluster => cluster::PACKAGES.map(String::from).to_vec(),
        })
    }

    /// The text of the file, whatever it was made of.
    pub(crate) fn text(self) -> Result<String> {
        let file = self.file();
        Ok(fs::read_to_string(crate::root().join(file)).map_err(|error| format!("{file}: {error}"))?)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// A file that does not belong to the packages that are wanted, or has a package without a hash.
    pub(crate) fn read(self) -> Result<String> {
        let (file, text) = (self.file(), self.text()?);
        check(&self.wanted()?, &text).map_err(|error| {
            format!("{file} does not belong to {}: {error}; `cargo xtask pin` writes it anew", self.source())
        })?;
        Ok(text)
    }

    /// Adds to a Python the arguments that install the packages: files with other hashes are refused.
    pub(crate) fn install(self, python: &mut Command) -> &mut Command {
        python.args(["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "--requirement"]);
        python.arg(crate::root().join(self.file()))
    }
}

/// The first line of a file names what it is made of.
fn first_line(wanted: &[String]) -> String {
    format!("# {}", wanted.join(" "))
}

/// Checks that a file of pins was made of the wanted packages, has each, and has a SHA-256 for every package.
fn check(wanted: &[String], text: &str) -> Result<()> {
    let expected = first_line(wanted);
    let found = text.lines().next().unwrap_or_default();
    if found != expected {
        return Err(format!("its first line is {found:?}, expected {expected:?}").into());
    }
    let hashes = hashes(text)?;
    for (package, hashes) in &hashes {
        if *hashes == 0 {
            return Err(format!("{package} has no hash").into());
        }
    }
    match wanted.iter().find(|package| !hashes.contains_key(package.as_str())) {
        Some(package) => Err(format!("{package} is not in it").into()),
        None => Ok(()),
    }
}

/// The number of hashes of each requirement: `name==version`, with ` ; condition` where it is for some machines only.
fn hashes(text: &str) -> Result<HashMap<&str, usize>> {
    let mut found = HashMap::new();
    let mut current = None;
    for line in text.lines().map(|line| line.trim_end_matches('\\').trim()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(hash) = line.strip_prefix("--hash=") {
            let is_sha256 = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            let package = current.filter(|_| hash.strip_prefix("sha256:").is_some_and(is_sha256));
            *found
                .entry(package.ok_or_else(|| format!("expected the SHA-256 of a package, found {line:?}"))?)
                .or_default() += 1;
        } else if line.split_once("==").is_some_and(|(name, _)| is_name(name)) {
            found.insert(line, 0);
            current = Some(line);
        } else {
            return Err(format!("expected name==version, found {line:?}").into());
        }
    }
    Ok(found)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.[]".contains(&byte))
}

/// Writes every file of pins anew: with the versions that it has where these still fit, or the newest with `upgrade`.
pub(crate) fn write(upgrade: bool) -> Result<()> {
    let uv = programs::uv()?;
    for pins in Pins::ALL {
        let wanted = pins.wanted()?;
        let path = crate::root().join(pins.file());
        let mut command = Command::new(&uv);
        // For every system and every Python that the set-up takes.
        command.args(["pip", "compile", "--universal", "--python-version", "3.10", "--generate-hashes"]);
        command.args(["--quiet", "--no-header", "--no-annotate"]).args(upgrade.then_some("--upgrade"));
        if pins == Pins::Cuda {
            command.arg("--no-deps");
        }
        command.arg("--output-file").arg(&path).arg("-").stdin(Stdio::piped()).stdout(Stdio::null());
        let failed = format!("{}: uv failed: {}", pins.file(), command_line(&command));
        let mut child = command.spawn().map_err(|error| format!("{failed}: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(wanted.join("\n").as_bytes())?;
        }
        if !child.wait()?.success() {
            return Err(failed.into());
        }
        let packages = fs::read_to_string(&path)?;
        let purpose =
            "# With all that they need, for every system and Python 3.10 or newer. Written by `cargo xtask pin`.";
        fs::write(&path, format!("{}\n{purpose}\n{packages}", first_line(&wanted)))?;
        pins.read()?;
        println!("{}: {} packages", pins.file(), hashes(&packages)?.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged;
    use crate::prerequisites;
    use crate::progress::Progress;

    #[test]
    fn files_of_pins_belong_to_what_they_are_made_of() {
        for pins in Pins::ALL {
            let text = pins.read().unwrap();
            assert!(hashes(&text).unwrap().len() >= pins.wanted().unwrap().len(), "{pins:?}");
        }
        let environment = Pins::Environment.read().unwrap();
        assert!(hashes(&environment).unwrap().len() > 80, "what JupyterLab needs is pinned too");
    }

    #[test]
    fn files_of_other_packages_and_without_hashes_are_refused() {
        let hash = "0a".repeat(32);
        let wanted = ["plotly==6.9.0".to_owned()];
        let text = format!(
            "# plotly==6.9.0\nnarwhals==2.0 ; os_name == 'nt' \\\n    --hash=sha256:{hash}\nplotly==6.9.0 \\\n    --hash=sha256:{hash} \\\n    --hash=sha256:{hash}\n"
        );
        check(&wanted, &text).unwrap();
        let error = |wanted: &[&str], text: &str| {
            let wanted: Vec<String> = wanted.iter().map(|&package| package.into()).collect();
            check(&wanted, text).unwrap_err().to_string()
        };
        assert!(error(&["plotly==6.9.1"], &text).contains("plotly==6.9.1"));
        assert!(error(&[], &text).contains("plotly==6.9.0"), "a package that is not wanted any more");
        assert!(error(&["plotly==6.9.0"], &text.replace("\nplotly==6.9.0", "\nplotly==6.8.0")).contains("not in it"));
        let without = text.replacen(&format!("    --hash=sha256:{hash}\n"), "", 1);
        assert!(error(&["plotly==6.9.0"], &without).contains("narwhals==2.0 ; os_name == 'nt' has no hash"));
        for line in ["--index-url=https://example.org", "plotly", "git+https://example.org/a==1", "--hash=md5:00"] {
            let error = error(&["plotly==6.9.0"], &format!("# plotly==6.9.0\n{line}\n"));
            assert!(error.contains("expected"), "{line}: {error}");
        }
    }

    /// A package whose file was changed, as pip sees it.
    #[test]
    fn a_changed_file_is_refused_with_an_explanation() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = "import sys, zipfile, hashlib
with zipfile.ZipFile('small-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('small.py', sys.argv[1])
    wheel.writestr('small-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n')
    wheel.writestr('small-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('small-1.0.dist-info/RECORD', 'small.py,,\\nsmall-1.0.dist-info/METADATA,,\\nsmall-1.0.dist-info/WHEEL,,\\nsmall-1.0.dist-info/RECORD,,\\n')
print(hashlib.sha256(open('small-1.0-py3-none-any.whl', 'rb').read()).hexdigest(), end='')";
        let python = prerequisites::python().unwrap();
        let build = |contents: &str| {
            let mut command = Command::new(&python);
            let output = command.args(["-c", wheel, contents]).current_dir(folder).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let venv = folder.join("venv");
        assert!(Command::new(&python).args(["-m", "venv"]).arg(&venv).status().unwrap().success());
        let install = || {
            let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
            let mut pip = Command::new(bin.join("python"));
            pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--find-links", "."]);
            pip.args(["--force-reinstall", "--require-hashes", "--requirement", "pins.txt"]).current_dir(folder);
            Progress::run(1, |progress| progress.step("x", |step| logged::run(step, "pins-test", &mut pip)))
        };
        let hash = build("x = 1");
        fs::write(folder.join("pins.txt"), format!("small==1.0 --hash=sha256:{hash}\n")).unwrap();
        install().unwrap();
        assert_ne!(build("x = 2"), hash);
        let error = install().unwrap_err().to_string();
        assert!(error.contains("not the one that was pinned"), "{error}");
    }
}
