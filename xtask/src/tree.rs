//! Where things are: the workspace, its sources, its build output.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{self, Failure};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Every file that belongs to the project (tracked, or new and not ignored), relative to the root, sorted.
///
/// # Errors
/// git is missing or this is no repository.
pub(crate) fn files() -> Result<Vec<PathBuf>, Failure> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listing = steps::output(&mut git)?;
    let mut files: Vec<PathBuf> = listing
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|file| root().join(file).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file below the root.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    let path = root().join(file);
    std::fs::read_to_string(&path)
        .map_err(|error| Failure::check(format!("cannot read {}: {error}", path.display())))
}
