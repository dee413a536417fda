//! Files that cargo compiles in release mode, wherever the user's configuration puts them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The compiled library of the notebooks, if there is one.
pub(crate) fn library() -> Option<PathBuf> {
    let name = format!("{}attention_tokens{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    newest(&crate::root().join("target"), Path::new(&name))
}

/// The newest of the files of a name in the folder `release` of a target folder and in those of its targets: with
/// `build.target` in the user's configuration, cargo writes to `TARGET/release`.
pub(crate) fn newest(target: &Path, name: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(target).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = entries.filter(|folder| is_target(folder)).chain([target.to_owned()]);
    let files = folders.map(|folder| folder.join("release").join(name));
    let dated = files.filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file)));
    dated.max().map(|(_, file)| file)
}

/// Whether a folder has the name of a target, such as `x86_64-unknown-linux-gnu`. The library with other features has a
/// folder such as `cuda-png`.
fn is_target(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.matches('-').count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_newest_file_is_taken_from_the_folders_of_targets_too() {
        let target = tempfile::tempdir().unwrap();
        let (target, name) = (target.path(), Path::new("examples/a"));
        assert_eq!(newest(target, name), None);
        assert_eq!(newest(&target.join("none"), name), None);
        for (seconds, folder) in [(3, "cuda-png"), (2, "x86_64-unknown-linux-gnu"), (1, "")] {
            let file = target.join(folder).join("release").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::create(&file).unwrap().set_modified(changed).unwrap();
        }
        let own = target.join("release").join(name);
        assert_eq!(newest(target, name), Some(target.join("x86_64-unknown-linux-gnu/release").join(name)));
        fs::File::options().write(true).open(&own).unwrap().set_modified(SystemTime::now()).unwrap();
        assert_eq!(newest(target, name), Some(own));
    }
}
