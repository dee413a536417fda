//! The part of the standard library's sources that rust-analyzer reads, as a folder of links.
//!
//! rust-analyzer reads the whole folder of sources when a kernel starts, and again when a dependency is added. More than half
//! of it is `core_arch`, the instructions of processors (`std::arch`): without it, a notebook opens almost two seconds
//! sooner. evcxr then asks for the type of a variable such as `let x = unsafe { std::arch::x86_64::_mm_setzero_ps() };`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::Result;

/// Folders of packages that rust-analyzer does not need.
const LEFT_OUT: [&str; 3] = ["benches", "core_arch", "tests"];

/// The folder `to` with links to the sources in `library`, made anew if these are another toolchain's.
///
/// Where there are no symbolic links, the folder `library` itself.
pub(crate) fn up_to_date(library: &Path, to: &Path) -> Result<PathBuf> {
    if cfg!(not(unix)) || library == to {
        return Ok(library.to_owned()); // The same folder: where a kernel's `RUST_SRC_PATH` is inherited.
    }
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    // The names of packages and the versions of their dependencies differ between toolchains.
    let lock = fs::read_to_string(library.join("Cargo.lock")).unwrap_or_default();
    let (stamp, wanted) = (to.with_extension("txt"), format!("{}\n{lock}", library.display()));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && to.is_dir() {
        return Ok(to.to_owned());
    }
    let _ = fs::remove_file(&stamp);
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed)?;
    }
    link(library, to, 0).map_err(failed)?;
    fs::write(&stamp, wanted).map_err(failed)?;
    Ok(to.to_owned())
}

/// Makes the folder `to` with a link for each entry of `from`. Folders of packages, which are up to three levels deep
/// (`stdarch/crates/std_detect`), are made too, because some of their entries are left out.
fn link(from: &Path, to: &Path, depth: usize) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if LEFT_OUT.iter().any(|&left_out| name == left_out) {
            continue;
        }
        if path.is_dir() && name != "src" && depth < 3 {
            link(&path, &to.join(name), depth + 1)?;
        } else {
            symlink(path, to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(not(unix))]
use std::os::windows::fs::symlink_file as symlink;

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn sources_are_linked_without_tests_and_instructions_and_follow_another_toolchain() {
        let folder = tempfile::tempdir().unwrap();
        let links = folder.path().join("share/library");
        for toolchain in ["1.94", "1.95"] {
            let library = folder.path().join(toolchain).join("library");
            for file in [
                "Cargo.lock",
                "Cargo.toml",
                "std/Cargo.toml",
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
                fs::write(library.join(file), toolchain).unwrap();
            }
            for _ in 0..2 {
                assert_eq!(up_to_date(&library, &links).unwrap(), links);
            }
            for linked in
                ["Cargo.lock", "std/src/lib.rs", "std/src/tests/mod.rs", "stdarch/crates/std_detect/src/lib.rs"]
            {
                assert_eq!(fs::read_to_string(links.join(linked)).unwrap(), toolchain, "{linked}");
            }
            for left_out in ["std/tests", "core/benches", "stdarch/crates/core_arch", "stdarch/crates/std_detect/tests"]
            {
                assert!(!links.join(left_out).exists(), "{left_out}");
            }
            assert_eq!(up_to_date(&links, &links).unwrap(), links);
        }
        // An interrupted call is repeated, and what is linked stays.
        fs::remove_file(links.with_extension("txt")).unwrap();
        let library = folder.path().join("1.95/library");
        up_to_date(&library, &links).unwrap();
        assert!(links.join("core/src/lib.rs").is_file() && library.join("core/src/lib.rs").is_file());
    }
}
