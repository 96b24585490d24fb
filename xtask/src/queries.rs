//! `cargo xtask sqlx`: storage's queries are checked at compile time against descriptions in `storage/.sqlx`;
//! this writes them anew from the migrations. The macros themselves write them, so that no tool has to be
//! compiled for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::steps::{self, Failure};
use crate::{debian, tree};

const DESCRIPTIONS: &str = "storage/.sqlx";
const MIGRATIONS: &str = "storage/migrations";

/// Writes all descriptions.
///
/// # Errors
/// sqlite3 is missing (2), or a migration or query is wrong (1).
pub(crate) fn describe() -> Result<(), Failure> {
    debian::install_to_test()?;
    let database = tree::target().join("schema.db");
    build_schema(&database)?;
    let descriptions = tree::root().join(DESCRIPTIONS);
    fs::create_dir_all(&descriptions).map_err(|error| failed(&descriptions, &error))?;
    for entry in fs::read_dir(&descriptions).map_err(|error| failed(&descriptions, &error))?.flatten() {
        fs::remove_file(entry.path()).map_err(|error| failed(&entry.path(), &error))?;
    }
    // Before, so that the macros run; after, so that the next build reads what they wrote.
    touch_storage()?;
    let mut check = steps::cargo(&["check", "--release", "--locked", "--package", "storage"]);
    check
        .env("DATABASE_URL", format!("sqlite://{}", database.display()))
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &descriptions);
    let checked = steps::run(&mut check);
    touch_storage()?;
    checked
}

/// An empty database with all migrations, in their order.
fn build_schema(database: &Path) -> Result<(), Failure> {
    if database.exists() {
        fs::remove_file(database).map_err(|error| failed(database, &error))?;
    }
    if let Some(folder) = database.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let migrations = tree::files()?.into_iter().filter(|file| {
        file.starts_with(MIGRATIONS) && file.extension().is_some_and(|extension| extension == "sql")
    });
    for migration in migrations {
        let path = tree::root().join(migration);
        let script = File::open(&path).map_err(|error| failed(&path, &error))?;
        steps::run(Command::new("sqlite3").arg("-bail").arg(database).stdin(Stdio::from(script)))?;
    }
    Ok(())
}

fn touch_storage() -> Result<(), Failure> {
    let path = tree::root().join("storage/src/lib.rs");
    File::options()
        .append(true)
        .open(&path)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(|error| failed(&path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::check(format!("{}: {error}", path.display()))
}
