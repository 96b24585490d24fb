//! The Debian packages that building, testing and the demonstration need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::steps::{self, Failure};

/// A program and the Debian package that brings it.
struct Need {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TO_BUILD: &[Need] = &[
    Need { program: "cc", package: "gcc", purpose: "compiles libopus and SQLite" },
    Need { program: "make", package: "make", purpose: "builds libopus" },
    Need { program: "cmake", package: "cmake", purpose: "builds libopus" },
];

const TO_TEST: &[Need] = &[
    Need { program: "sipp", package: "sip-tester", purpose: "places the thousand calls" },
    Need { program: "baresip", package: "baresip-core", purpose: "the two telephones that hear each other" },
    Need { program: "linphonec", package: "linphone-cli", purpose: "a telephone of another make" },
    Need { program: "kamailio", package: "kamailio", purpose: "the carrier that registers and challenges" },
    Need { program: "sqlite3", package: "sqlite3", purpose: "locks the database from outside" },
    Need { program: "git", package: "git", purpose: "lists the project's files" },
];

const TO_COMPARE: &[Need] = &[Need {
    program: "kamailio",
    package: "kamailio",
    purpose: "the peer that signalling is compared with",
}];

/// Installs what building needs.
///
/// # Errors
/// Something is missing and may not, or could not, be installed (2); the message says what to run.
pub(crate) fn install_to_build() -> Result<(), Failure> {
    install(&missing(TO_BUILD.iter(), on_path))
}

/// Installs what building and testing need.
///
/// # Errors
/// As [`install_to_build`].
pub(crate) fn install_to_test() -> Result<(), Failure> {
    install(&missing(TO_BUILD.iter().chain(TO_TEST), on_path))
}

/// Installs what building and comparing with a peer need.
///
/// # Errors
/// As [`install_to_build`].
pub(crate) fn install_to_compare() -> Result<(), Failure> {
    install(&missing(TO_BUILD.iter().chain(TO_COMPARE), on_path))
}

fn missing<'a>(needs: impl Iterator<Item = &'a Need>, present: impl Fn(&str) -> bool) -> Vec<&'a Need> {
    needs.filter(|need| !present(need.program)).collect()
}

fn install(needs: &[&Need]) -> Result<(), Failure> {
    if needs.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = needs.iter().map(|need| need.package).collect();
    let Some(prefix) = privilege() else { return Err(Failure::usage(instructions(needs))) };
    println!("installing {}", packages.join(" "));
    let attempt = |arguments: &[&str]| {
        let mut line: Vec<&str> = prefix.to_vec();
        line.push("apt-get");
        line.extend(arguments);
        let (program, rest) = line.split_first().ok_or_else(|| Failure::usage("no command"))?;
        steps::run(Command::new(program).args(rest).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    // A fresh machine may have no package lists yet, and an old one stale ones.
    if attempt(&arguments).is_err() {
        attempt(&["update"])
            .and_then(|()| attempt(&arguments))
            .map_err(|failure| Failure::usage(format!("{failure}\n{}", instructions(needs))))?;
    }
    let still: Vec<&Need> = missing(needs.iter().copied(), on_path);
    if still.is_empty() { Ok(()) } else { Err(Failure::usage(instructions(&still))) }
}

/// The words that must stand before `apt-get`: none for root, `sudo -n` where it asks no password;
/// `None` if we may not, or there is no apt-get.
fn privilege() -> Option<&'static [&'static str]> {
    if !on_path("apt-get") {
        return None;
    }
    let quiet = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    };
    let user = quiet("id", &["-u"])?;
    if user.stdout.trim_ascii() == b"0" {
        return Some(&[]);
    }
    let sudo = quiet("sudo", &["-n", "true"])?;
    sudo.status.success().then_some(&["sudo", "-n"])
}

fn instructions(needs: &[&Need]) -> String {
    let mut text = String::from("these programs are missing:\n");
    let mut packages = String::new();
    for need in needs {
        text.push_str(&format!(
            "  {:<10} {} (Debian package {})\n",
            need.program, need.purpose, need.package
        ));
        packages.push(' ');
        packages.push_str(need.package);
    }
    text.push_str(&format!("install them with\n  sudo apt-get install --no-install-recommends{packages}"));
    text
}

pub(crate) fn on_path(program: &str) -> bool {
    located(program).is_some()
}

/// Where `program` is on the search path, or where Debian puts services, which an ordinary user's path leaves out.
pub(crate) fn located(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_absent_is_asked_for() {
        let absent = missing(TO_BUILD.iter(), |program| program != "cmake");
        assert_eq!(absent.iter().map(|need| need.package).collect::<Vec<_>>(), ["cmake"]);
    }

    #[test]
    fn the_instructions_name_every_program_and_one_command() {
        let text = instructions(&TO_TEST.iter().collect::<Vec<_>>());
        assert!(text.contains("sipp"));
        assert!(
            text.ends_with(
                "--no-install-recommends sip-tester baresip-core linphone-cli kamailio sqlite3 git"
            )
        );
    }
}
