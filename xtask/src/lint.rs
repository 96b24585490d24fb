//! `cargo xtask lint`: everything that can be said about the sources without running them.

use crate::steps::{self, Failure, Steps};
use crate::{arrows, conformance, conventions, debian, policy};

/// Runs all checks; those that compile come last.
///
/// # Errors
/// Names of the checks that failed.
pub(crate) fn lint() -> Result<(), Failure> {
    debian::install_to_build()?;
    let mut steps = Steps::new();
    steps.step("format", || steps::run(&mut steps::cargo(&["fmt", "--all", "--check"])));
    steps.step("dependency arrows", arrows::check);
    steps.step("names and lengths", conventions::check);
    steps.step("policy clauses", policy::check);
    steps.step("conformance ledger", conformance::check);
    steps.step("licences, bans, sources", licences);
    steps.step("clippy", || {
        // The release profile, like all else, so that build scripts (libopus, SQLite) run once.
        let arguments =
            ["clippy", "--workspace", "--all-targets", "--release", "--locked", "--", "-D", "warnings"];
        steps::run(&mut steps::cargo(&arguments))
    });
    steps.step("rustdoc", || {
        let arguments =
            ["doc", "--workspace", "--no-deps", "--document-private-items", "--release", "--locked"];
        steps::run(steps::cargo(&arguments).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.finish()
}

/// cargo-deny is not compiled for this, only used where it is.
fn licences() -> Result<(), Failure> {
    if !debian::on_path("cargo-deny") {
        println!("cargo-deny is not installed: not checked");
        return Ok(());
    }
    steps::run(&mut steps::cargo(&["deny", "--workspace", "check", "licenses", "bans", "sources"]))
}
