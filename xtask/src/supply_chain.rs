//! What the library depends on: licences, sources and duplicates by cargo-deny, and the notices. Known vulnerabilities are
//! a command of their own: they need a database from the network, and change without a change of the project.

use xshell::cmd;

use crate::tool::{Result, shell};
use crate::{notices, programs};

/// Entries of `.cargo/deny.toml` that apply to nothing any more are errors too.
const STALE: [&str; 8] = [
    "--deny",
    "unnecessary-skip",
    "--deny",
    "unmatched-skip",
    "--deny",
    "license-not-encountered",
    "--deny",
    "license-exception-not-encountered",
];

/// Checks the dependencies against `.cargo/deny.toml`, and that the notices are those of the dependencies.
pub(crate) fn check() -> Result<()> {
    let (shell, deny) = (shell()?, programs::cargo_deny()?);
    cmd!(shell, "{deny} --locked check {STALE...} licenses sources bans").run()?;
    notices::check()
}

/// Checks the dependencies against RustSec's database of known vulnerabilities.
pub(crate) fn advisories() -> Result<()> {
    let (shell, deny) = (shell()?, programs::cargo_deny()?);
    cmd!(shell, "{deny} fetch db").run().map_err(|error| {
        format!(
            "NOT CHECKED: {error}; the database is github.com/rustsec/advisory-db, which this command needs to reach"
        )
    })?;
    Ok(cmd!(shell, "{deny} --locked --offline check --deny advisory-not-detected advisories").run()?)
}
