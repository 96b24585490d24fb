//! The audit log's chain: each row's hash covers its contents and the hash of the row before it, so that
//! no row can be edited, removed, inserted or moved without every later hash telling.
//!
//! What the chain cannot tell by itself is that its end was cut off, or that all of it was computed
//! anew. For that its head (count and last hash) is kept in a file outside the database as well; whoever
//! can write both can forge both, so the head is also for copying elsewhere (`earmark audit verify`
//! prints it). An append moves the head on only if the log still holds what the head names, and never
//! makes up for a head that is gone; after an explained loss (a restored backup) the operator puts there
//! what `audit verify` prints.
//!
//! | found | is |
//! |---|---|
//! | a row's hash is not that of its contents | [`AuditFault::Altered`] |
//! | a sequence number is missing | [`AuditFault::Missing`] |
//! | a row does not continue the one before it | [`AuditFault::Detached`] |
//! | the log is shorter than the head says | [`AuditFault::Truncated`] |
//! | the row that the head names has another hash | [`AuditFault::Rewritten`] |
//! | there are rows and no head | [`AuditFault::NoHead`] |
//! | the log is longer than the head says | nothing: a crash came between the row and the head, or a second process is appending |

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use consent::Wall;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Sets the hashes apart from any other use of SHA-256, and this layout from a later one.
const DOMAIN: &[u8] = b"earmark audit 1";

/// What the first row continues.
pub(crate) const GENESIS: Hash = Hash([0; 32]);

/// A SHA-256, printed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The n-th row, from 1.
    pub seq: u64,
    /// When.
    pub at: Wall,
    /// Who.
    pub actor: String,
    /// What, as a code.
    pub action: String,
    /// On what.
    pub object: Option<String>,
    /// Further facts.
    pub detail: Option<String>,
}

/// How long the log is and what its last row's hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Rows.
    pub count: u64,
    /// The last row's hash; zeros if there is none.
    pub hash: Hash,
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Rows that continue the chain.
    pub count: u64,
    /// The last of them.
    pub head: Hash,
    /// What the head file says, if there is one.
    pub head_file: Option<AuditHead>,
    /// The first thing that is wrong; `None` if nothing is.
    pub fault: Option<AuditFault>,
}

/// What is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum AuditFault {
    /// A row's contents are not what was hashed.
    #[error("row {seq} was altered")]
    Altered {
        /// Which.
        seq: u64,
    },
    /// A row is gone.
    #[error("row {seq} is missing")]
    Missing {
        /// Which.
        seq: u64,
    },
    /// A row does not continue the one before it: something was inserted, moved or computed anew.
    #[error("row {seq} does not continue the row before it")]
    Detached {
        /// Which.
        seq: u64,
    },
    /// Rows at the end are gone.
    #[error("the log ends with row {count}, but its head file names row {head}: rows were cut off its end")]
    Truncated {
        /// The last row there is.
        count: u64,
        /// The row that the head file names.
        head: u64,
    },
    /// The chain is whole but another one.
    #[error("row {seq} is not the row that the head file names: the log was computed anew")]
    Rewritten {
        /// The row that the head file names.
        seq: u64,
    },
    /// The head file is gone or damaged, though there are rows.
    #[error("the head file is missing or damaged: whether rows were cut off the log's end cannot be known")]
    NoHead,
}

/// Why the head file was not written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot write or read the audit log's head file {}", path.display())]
pub struct HeadError {
    path: PathBuf,
    source: io::Error,
}

impl AuditEntry {
    /// The hash of a row that continues `previous`.
    #[must_use]
    pub fn hash(&self, previous: &Hash) -> Hash {
        let mut sha = Sha256::new();
        sha.update(DOMAIN);
        sha.update(previous.0);
        sha.update(self.seq.to_be_bytes());
        sha.update(self.at.0.to_be_bytes());
        for text in [Some(&self.actor), Some(&self.action), self.object.as_ref(), self.detail.as_ref()] {
            // The length before the text: no two rows have the same bytes.
            sha.update([u8::from(text.is_some())]);
            let text = text.map_or("", String::as_str);
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text);
        }
        Hash(sha.finalize().into())
    }
}

/// Walks the rows in order of their numbers.
#[derive(Debug)]
pub struct Verification {
    count: u64,
    head: Hash,
    head_file: Option<AuditHead>,
    named: Option<Hash>,
    fault: Option<AuditFault>,
}

impl Verification {
    /// Begins, knowing what the head file says.
    #[must_use]
    pub fn new(head_file: Option<AuditHead>) -> Self {
        Self { count: 0, head: GENESIS, head_file, named: None, fault: None }
    }

    /// Takes the next row, with the hashes stored beside it; `false` if the chain is broken by it.
    pub fn row(&mut self, entry: &AuditEntry, previous: &Hash, hash: &Hash) -> bool {
        let seq = self.count + 1;
        self.fault = if entry.seq != seq {
            Some(AuditFault::Missing { seq })
        } else if entry.hash(previous) != *hash {
            Some(AuditFault::Altered { seq })
        } else if *previous != self.head {
            Some(AuditFault::Detached { seq })
        } else {
            None
        };
        if self.fault.is_some() {
            return false;
        }
        self.count = seq;
        self.head = *hash;
        if self.head_file.is_some_and(|head| head.count == seq) {
            self.named = Some(*hash);
        }
        true
    }

    /// Ends after the last row, or the one that broke the chain.
    #[must_use]
    pub fn end(self) -> AuditReport {
        let fault = self.fault.or(match self.head_file {
            None if self.count > 0 => Some(AuditFault::NoHead),
            Some(head) if head.count > self.count => {
                Some(AuditFault::Truncated { count: self.count, head: head.count })
            }
            Some(head) if head.count > 0 && self.named != Some(head.hash) => {
                Some(AuditFault::Rewritten { seq: head.count })
            }
            _ => None,
        });
        AuditReport { count: self.count, head: self.head, head_file: self.head_file, fault }
    }
}

/// The file outside the database that names the log's last row.
#[derive(Clone, Debug)]
pub struct HeadFile(PathBuf);

impl HeadFile {
    /// The head file at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What it says; `None` if it is not there or damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Option<AuditHead>, HeadError> {
        match fs::read(&self.0) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HeadError { path: self.0.clone(), source }),
        }
    }

    /// Names a row, unless the file already names a later one (of another process).
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, head: &AuditHead) -> Result<(), HeadError> {
        if self.read()?.is_some_and(|written| written.count >= head.count) {
            return Ok(());
        }
        self.replace(head).map_err(|source| HeadError { path: self.0.clone(), source })
    }

    fn replace(&self, head: &AuditHead) -> io::Result<()> {
        let partial = self.0.with_extension(format!("partial-{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&serde_json::to_vec(head)?)?;
        file.sync_all()?;
        fs::rename(&partial, &self.0)?;
        let folder =
            self.0.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes)
            .map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    type Row = (AuditEntry, Hash, Hash);

    fn row(seq: u64, previous: Hash) -> Row {
        let entry = AuditEntry {
            seq,
            at: Wall(seq as i64),
            actor: "console".into(),
            action: "recording.export".into(),
            object: Some(format!("r{seq}")),
            detail: None,
        };
        let hash = entry.hash(&previous);
        (entry, previous, hash)
    }

    fn log(count: u64) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for seq in 1..=count {
            rows.push(row(seq, rows.last().map_or(GENESIS, |last| last.2)));
        }
        rows
    }

    fn fault(rows: &[Row], head: Option<AuditHead>) -> Option<AuditFault> {
        let mut verification = Verification::new(head);
        for (entry, previous, hash) in rows {
            if !verification.row(entry, previous, hash) {
                break;
            }
        }
        verification.end().fault
    }

    fn head(rows: &[Row]) -> Option<AuditHead> {
        rows.last().map(|last| AuditHead { count: rows.len() as u64, hash: last.2 })
    }

    #[test]
    fn every_way_of_tampering_is_found_at_its_first_row() {
        let whole = log(5);
        let named = head(&whole);
        assert_eq!(fault(&whole, named), None);
        assert_eq!(fault(&[], None), None);

        let mut edited = whole.clone();
        edited[2].0.actor = "nobody".into();
        assert_eq!(fault(&edited, named), Some(AuditFault::Altered { seq: 3 }));

        let mut edited_with_its_hash = edited.clone();
        edited_with_its_hash[2].2 = edited_with_its_hash[2].0.hash(&edited_with_its_hash[2].1);
        assert_eq!(fault(&edited_with_its_hash, named), Some(AuditFault::Detached { seq: 4 }));

        let mut removed = whole.clone();
        removed.remove(1);
        assert_eq!(fault(&removed, named), Some(AuditFault::Missing { seq: 2 }));

        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        (swapped[1].0.seq, swapped[2].0.seq) = (2, 3);
        assert_eq!(fault(&swapped, named), Some(AuditFault::Altered { seq: 2 }));

        assert_eq!(fault(&whole[..3], named), Some(AuditFault::Truncated { count: 3, head: 5 }));
        assert_eq!(fault(&[], named), Some(AuditFault::Truncated { count: 0, head: 5 }));

        let mut anew = log(5);
        anew[0].0.actor = "nobody".into();
        let mut previous = GENESIS;
        for (entry, before, hash) in &mut anew {
            *before = previous;
            *hash = entry.hash(&previous);
            previous = *hash;
        }
        assert_eq!(fault(&anew, named), Some(AuditFault::Rewritten { seq: 5 }));
        assert_eq!(fault(&whole, None), Some(AuditFault::NoHead));
    }

    #[test]
    fn a_row_after_the_head_is_no_fault() {
        let whole = log(5);
        assert_eq!(fault(&whole, head(&whole[..4])), None);
    }

    #[test]
    fn texts_that_run_together_are_different_rows() {
        let entry = |actor: &str, action: &str, object: Option<&str>| AuditEntry {
            seq: 1,
            at: Wall(0),
            actor: actor.into(),
            action: action.into(),
            object: object.map(Into::into),
            detail: None,
        };
        let hashes = [entry("ab", "c", None), entry("a", "bc", None), entry("ab", "c", Some(""))]
            .map(|entry| entry.hash(&GENESIS));
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
    }

    #[test]
    fn the_head_file_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = HeadFile::new(dir.path().join("earmark.db.audit-head"));
        assert_eq!(file.read().unwrap(), None);
        let rows = log(3);
        file.write(&head(&rows).unwrap()).unwrap();
        file.write(&head(&rows[..2]).unwrap()).unwrap();
        assert_eq!(file.read().unwrap(), head(&rows));
    }
}
