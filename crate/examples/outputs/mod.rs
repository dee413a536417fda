//! The files that a program may replace: those that an earlier run of it wrote, and none that it reads.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Says of a file's first bytes whether an earlier run wrote it.
pub(crate) type OfAnEarlierRun<'a> = &'a dyn Fn(&[u8]) -> bool;

/// The words of an error, which ends `… is there and is NO of an earlier run; REMEDY, or move the file`.
pub(crate) struct Words {
    pub(crate) no: &'static str,
    pub(crate) remedy: &'static str,
}

/// An error unless `output` is new, or a file that an earlier run wrote, and is none of the inputs.
pub(crate) fn check<P: AsRef<Path>>(
    output: &Path,
    inputs: &[P],
    of_an_earlier_run: OfAnEarlierRun,
    words: &Words,
) -> Result<(), Box<dyn Error>> {
    let (shown, Words { no, remedy }) = (output.display(), words);
    if let Some(input) = inputs.iter().map(AsRef::as_ref).find(|input| same_file(input, output)) {
        return Err(format!("{shown} would replace the input {}; {remedy}", input.display()).into());
    }
    let file = match File::open(output) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{shown}: {error}").into()),
    };
    let mut first = Vec::new();
    file.take(4096).read_to_end(&mut first)?;
    if !of_an_earlier_run(&first) {
        return Err(format!("{shown} is there and is {no} of an earlier run; {remedy}, or move the file").into());
    }
    Ok(())
}

/// Whether two paths name one file: also through links, and where case does not count.
fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let (Ok(a), Ok(b)) = (a.metadata(), b.metadata()) {
            return (a.dev(), a.ino()) == (b.dev(), b.ino());
        }
    }
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
