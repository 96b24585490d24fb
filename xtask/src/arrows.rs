//! The dependency arrows of docs/ARCHITECTURE.md, checked against the manifests:
//!
//! ```text
//! consent ← sip-gateway, recorder, storage      (no other edges between these four)
//! consent, storage, recorder ← portal
//! all ← the root package
//! ```
//!
//! and `consent` stays pure: nothing that does I/O, keeps time or draws random numbers is below it, at any
//! depth. Development dependencies are held to the same arrows between crates, but not to purity.

use std::path::Path;

use crate::steps::{self, Failure};
use crate::tree;

/// Each library of the workspace, and which of the others it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("consent", &[]),
    ("sip-gateway", &["consent"]),
    ("recorder", &["consent"]),
    ("storage", &["consent"]),
    ("portal", &["consent", "storage", "recorder"]),
];

/// Crates that may stand on everything, and under nothing but each other.
const SHELLS: &[&str] = &["earmark", "simulation", "xtask"];

/// What must not be found below `consent`: the four of the design, and what they themselves stand on.
const IMPURE: &[&str] =
    &["tokio", "sqlx", "rsip", "rand", "rand_core", "getrandom", "mio", "socket2", "async-io", "smol"];

/// Checks the workspace.
///
/// # Errors
/// Every edge that the design does not have.
pub(crate) fn check() -> Result<(), Failure> {
    let mut breaches = Vec::new();
    for (name, _) in ALLOWED {
        let manifest = Path::new(name).join("Cargo.toml");
        if tree::root().join(&manifest).is_file() {
            breaches.extend(edges(name, &tree::read(&manifest)?));
        }
    }
    let mut command =
        steps::cargo(&["tree", "--package", "consent", "--edges", "normal,build", "--prefix", "none"]);
    breaches.extend(impure(&steps::output(command.arg("--locked"))?));
    if breaches.is_empty() {
        println!("dependency arrows as in docs/ARCHITECTURE.md");
        return Ok(());
    }
    Err(Failure::check(breaches.join("\n")))
}

/// The edges from `package` that its manifest has and the design has not.
fn edges(package: &str, manifest: &str) -> Vec<String> {
    let allowed = ALLOWED.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, allowed)| allowed);
    dependencies(manifest)
        .into_iter()
        .filter(|name| ALLOWED.iter().any(|(known, _)| known == name) || SHELLS.contains(&name.as_str()))
        .filter(|name| !allowed.contains(&name.as_str()))
        .map(|name| format!("{package} → {name}: the design has no such arrow"))
        .collect()
}

/// Names of all packages in the dependency tables of a manifest, renamed ones under their own name.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let path: Vec<&str> = header.trim_matches(['[', ']']).split('.').collect();
            let table = path.iter().position(|part| part.ends_with("dependencies"));
            in_table = table.is_some_and(|at| at + 1 == path.len());
            // `[dependencies.name]`
            if let Some(name) = table.and_then(|at| path.get(at + 1)) {
                names.push(name.trim_matches('"').to_owned());
            }
            continue;
        }
        if let Some(package) = quoted_after(line, "package") {
            names.push(package);
        }
        if in_table && let Some((key, _)) = line.split_once('=') {
            let name = key.split('.').next().unwrap_or(key);
            names.push(name.trim().trim_matches('"').to_owned());
        }
    }
    names.retain(|name| !name.is_empty() && !name.starts_with('#'));
    names
}

/// The string that follows `key =` anywhere in an inline table or on a line of its own.
fn quoted_after(line: &str, key: &str) -> Option<String> {
    let at = line.find(key)?;
    let rest = line[at + key.len()..].trim_start().strip_prefix('=')?;
    rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)
}

/// The crates in the output of `cargo tree --prefix none` that `consent` must not stand on.
fn impure(listing: &str) -> Vec<String> {
    let mut found: Vec<String> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| IMPURE.contains(name))
        .map(|name| format!("consent stands on {name}: the rules do no I/O, keep no time and draw no lots"))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrows_of_the_design_pass() {
        let manifest =
            "[package]\nname = \"recorder\"\n\n[dependencies]\nconsent.workspace = true\nopus = \"1\"\n";
        assert!(edges("recorder", manifest).is_empty());
    }

    #[test]
    fn a_planted_arrow_is_found_however_it_is_written() {
        for planted in [
            "[dependencies]\nstorage.workspace = true\n",
            "[dependencies]\nstorage = { path = \"../storage\" }\n",
            "[dependencies.storage]\nworkspace = true\n",
            "[dev-dependencies]\nstorage.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nstorage.workspace = true\n",
            "[dependencies]\nrows = { package = \"storage\", path = \"../storage\" }\n",
            "[dependencies.rows]\npackage = \"storage\"\n",
        ] {
            assert_eq!(edges("recorder", planted).len(), 1, "{planted}");
        }
    }

    #[test]
    fn a_library_never_stands_on_the_daemon() {
        assert_eq!(edges("storage", "[dependencies]\nearmark = { path = \"..\" }\n").len(), 1);
    }

    #[test]
    fn consent_stands_on_nothing_of_ours() {
        assert_eq!(edges("consent", "[dependencies]\nrecorder.workspace = true\n").len(), 1);
    }

    #[test]
    fn what_does_io_is_found_below_consent_at_any_depth() {
        let listing = "consent v0.1.0 (/x)\nserde v1.0.0\ntokio v1.54.1\nrand v0.9.0\n";
        assert_eq!(impure(listing).len(), 2);
        assert!(impure("consent v0.1.0\nserde v1.0.0\nrandomize v1.0.0\n").is_empty());
    }
}
