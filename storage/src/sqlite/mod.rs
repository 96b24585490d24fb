//! The database: the journal's projection, for asking. SQLite, built in.
//!
//! Every connection: write-ahead log, synced at each commit (what is delivered is on the medium),
//! foreign keys, no trust in the schema's own functions, deleted bytes overwritten, and a wait of
//! [`BUSY_TIMEOUT`] for another process's lock. Writing transactions begin `IMMEDIATE`, so that two
//! processes wait for each other instead of failing half-way.
//!
//! Left out: PostgreSQL, retention and disposal.

mod audit;
mod batch;
mod calls;
mod ladder;
mod place;
mod recordings;
mod rows;
mod write;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Sqlite, Transaction};

pub use audit::{AuditFilter, AuditRow};
pub use ladder::LadderRow;
pub use place::Delivered;
pub use rows::{
    CallFilter, CallRow, ConsentRow, DecisionRow, ElsewhereRow, EvidenceRow, Explanation, GateInterval,
    LegMediaRow, MediaRow, PartyDecided, PartyRow, PreambleWiped, RecordingDetails, RecordingFilter,
    RecordingListed, RecordingState, Role,
};

use crate::audit::{HeadError, HeadFile};

/// The first version without the defect of the write-ahead log's reset that corrupts databases with two
/// connections (3.7.0 to 3.51.2).
pub const MINIMUM_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// How long a connection waits for another's lock.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at once: one that writes, the rest read.
const CONNECTIONS: u32 = 4;

/// How long a query waits for one of them.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// SQLite's primary result codes that are about what is stored, not about where: SQLITE_TOOBIG (18),
/// SQLITE_CONSTRAINT (19), SQLITE_MISMATCH (20).
const REFUSALS: [u32; 3] = [18, 19, 20];

/// The open database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
    head: HeadFile,
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a URL of this version.
    #[error("storage.database is not sqlite:PATH")]
    Url {
        /// What sqlx says.
        source: sqlx::Error,
    },
    /// The file or its folder cannot be made.
    #[error("cannot make the database file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The SQLite built in is older than [`MINIMUM_SQLITE`].
    #[error("SQLite {found} is in use; at least 3.51.3 is needed (older ones can corrupt a database)")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// The schema cannot be brought to this version's.
    #[error("the database's schema cannot be brought up to date")]
    Migrate {
        /// What sqlx says.
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("the database does not answer or refuses")]
    Sql {
        /// What sqlx says.
        #[from]
        source: sqlx::Error,
    },
    /// A stored value is none that this version knows.
    #[error("the database holds a {what} that this version does not know")]
    Value {
        /// Of which kind.
        what: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The audit log's head file.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl StoreError {
    /// Whether the database itself refuses what it was given, so that trying again is of no use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error) } = self else { return false };
        let code = error.code().and_then(|code| code.parse::<u32>().ok());
        code.is_some_and(|code| REFUSALS.contains(&(code & 0xff)))
    }
}

impl Store {
    /// Opens the database of a service that has run, and changes nothing about it. For commands: where
    /// there is none, "no such records" would be the wrong answer.
    ///
    /// # Errors
    /// If there is none, or it does not answer.
    pub async fn open_existing(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?;
        let path = options.get_filename().to_owned();
        let there = path.metadata().map_err(|source| StoreError::File { path: path.clone(), source });
        there.map(drop)?;
        Ok(Self { pool: connect(options).await?, head: HeadFile::new(head_path(&path)) })
    }

    /// Opens the database at `url` (`sqlite:PATH`), makes it if it is not there (file 0600 in a folder
    /// 0700) and brings its schema up to date.
    ///
    /// # Errors
    /// If it is locked for longer than [`BUSY_TIMEOUT`], cannot be made or is of a later version.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?.create_if_missing(true);
        let path = options.get_filename().to_owned();
        make_private(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
        let pool = connect(options).await?;
        let migrator = sqlx::migrate!();
        migrator.run(&pool).await.map_err(|source| StoreError::Migrate { source })?;
        let store = Self { pool, head: HeadFile::new(head_path(&path)) };
        if let Err(error) = store.begin_head().await {
            tracing::error!(%error, "the audit log's head file was not made");
        }
        Ok(store)
    }

    /// Closes all connections; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A writing transaction.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Beside the database: `earmark.db` has its head in `earmark.db.audit-head`.
fn head_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".audit-head");
    PathBuf::from(name)
}

/// Made before SQLite makes it, with its permissions; the write-ahead log gets the same.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(())
}

fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|source| StoreError::Url { source })?;
    Ok(options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .pragma("secure_delete", "ON")
        .disable_statement_logging())
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await?;
    require_version(&pool).await?;
    Ok(pool)
}

async fn require_version(pool: &SqlitePool) -> Result<(), StoreError> {
    let found =
        sqlx::query_scalar!(r#"SELECT sqlite_version() AS "version!: String""#).fetch_one(pool).await?;
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version: (u32, u32, u32) = (next(), next(), next());
    if version < MINIMUM_SQLITE {
        return Err(StoreError::TooOld { found });
    }
    Ok(())
}

/// The text of a value that serializes to a string: the contract's words.
fn word<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Ok(other.to_string()),
        Err(source) => Err(StoreError::Value { what: "word", source }),
    }
}

/// The value that a stored word stands for.
fn value<T: serde::de::DeserializeOwned>(what: &'static str, word: String) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|source| StoreError::Value { what, source })
}

/// The value that stored JSON stands for.
fn json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Value { what, source })
}

/// JSON for storing.
fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Value { what, source })
}

/// SQLite counts with sign; nothing here comes near the limit.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests;
