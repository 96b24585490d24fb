//! The audio store: a folder into which each sealed recording is put once, and out of which nothing is
//! changed.
//!
//! An object is called `yyyy/mm/<recording id>.earmark` after its first sample (UTC): no number, no
//! name. It becomes visible under that name only when its bytes are on the medium and have been read
//! back and found to have the expected hash; the name is given by a hard link, which never replaces one
//! that exists (rename would). All calls block: run them where blocking is allowed.
//!
//! Left out: S3-compatible stores, disposal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use consent::{RecordingId, Wall};
use sha2::{Digest, Sha256};

use crate::utc;

/// Where objects are before they have their name.
const INCOMING: &str = "incoming";

/// How much of an object is hashed at once.
const HASHED_BYTES: usize = 64 * 1024;

/// A folder of sealed recordings.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
}

/// Why an object was not stored, found or verified.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not a path below the store.
    #[error("{object:?} is not the name of an object")]
    Name {
        /// As given.
        object: String,
    },
    /// No such object.
    #[error("there is no object {object}")]
    Missing {
        /// Its name.
        object: String,
    },
    /// Its bytes are not those it was sealed with.
    #[error("object {object} has SHA-256 {found}, not {expected}")]
    Hash {
        /// Its name.
        object: String,
        /// As recorded.
        expected: String,
        /// As computed.
        found: String,
    },
    /// Another object has the name.
    #[error("object {object} exists with other bytes; it is not replaced")]
    Exists {
        /// Its name.
        object: String,
    },
    /// The file system objects.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl Objects {
    /// The store in the folder `root`, made if it is not there (mode 0700).
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        make_folder(&root.join(INCOMING))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The name of a recording's object.
    #[must_use]
    pub fn name(recording: RecordingId, started_at: Wall) -> String {
        format!("{}/{recording}.earmark", utc::month(started_at))
    }

    /// Puts a sealed file of the spool into the store; the object's name. When this returns, the object
    /// is on the medium with the hash `sha256` (hexadecimal), and the caller may remove the spool's file.
    /// Putting the same bytes again succeeds and changes nothing.
    ///
    /// # Errors
    /// If the file has another hash, another object has the name, or the file system objects.
    pub fn put(
        &self,
        recording: RecordingId,
        started_at: Wall,
        sealed: &Path,
        sha256: &str,
    ) -> Result<String, ObjectError> {
        let object = Self::name(recording, started_at);
        let path = self.root.join(&object);
        let folder = path.parent().unwrap_or(&self.root);
        let incoming = self.root.join(INCOMING).join(recording.to_string());
        remove_if_there(&incoming)?;
        let stored = self.bring(sealed, &incoming, &object, sha256).and_then(|()| {
            make_folder(folder)?;
            match fs::hard_link(&incoming, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match self.verify(&object, sha256) {
                        Err(ObjectError::Hash { .. }) => Err(ObjectError::Exists { object: object.clone() }),
                        other => other,
                    }
                }
                linked => linked.map_err(io_error("name the object", &path)),
            }
        });
        remove_if_there(&incoming)?;
        stored?;
        // Year, month and store: each may have a new name in it.
        for folder in folder.ancestors().take(3) {
            sync_folder(folder)?;
        }
        Ok(object)
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(&self, object: &str) -> Result<File, ObjectError> {
        let path = self.path_of(object)?;
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ObjectError::Missing { object: object.to_owned() },
            _ => ObjectError::Io { what: "open", path, source },
        })
    }

    /// Reads an object and compares its hash (hexadecimal).
    ///
    /// # Errors
    /// If it is missing or its bytes have changed.
    pub fn verify(&self, object: &str, sha256: &str) -> Result<(), ObjectError> {
        let found = hash(self.read(object)?).map_err(io_error("read", &self.root.join(object)))?;
        compare(object, sha256, found)
    }

    /// Whether it holds any object: then a missing key file is a loss and no first start.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn is_empty(&self) -> Result<bool, ObjectError> {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
                let path = entry.map_err(io_error("list", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "earmark") {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Brings the bytes onto the store's file system, onto the medium, and reads them back.
    fn bring(&self, sealed: &Path, incoming: &Path, object: &str, sha256: &str) -> Result<(), ObjectError> {
        copy(sealed, incoming)?;
        let file = File::open(incoming).map_err(io_error("open", incoming))?;
        let found = hash(&file).map_err(io_error("read back", incoming))?;
        compare(object, sha256, found)?;
        let read_only = fs::Permissions::from_mode(0o400);
        fs::set_permissions(incoming, read_only).map_err(io_error("protect", incoming))?;
        file.sync_all().map_err(io_error("sync", incoming))
    }

    fn path_of(&self, object: &str) -> Result<PathBuf, ObjectError> {
        let relative = Path::new(object);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if object.is_empty() || !plain {
            return Err(ObjectError::Name { object: object.to_owned() });
        }
        Ok(self.root.join(relative))
    }
}

/// A copy and not a link: what happens later to the spool's file must not happen to the object.
fn copy(from: &Path, to: &Path) -> Result<(), ObjectError> {
    let mut source = File::open(from).map_err(io_error("open", from))?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.map_err(io_error("make", to))?;
    io::copy(&mut source, &mut target).map_err(io_error("copy to", to))?;
    target.sync_all().map_err(io_error("sync", to))
}

/// The SHA-256 of a file, hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    hash(File::open(path)?)
}

fn hash(mut file: impl Read) -> io::Result<String> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; HASHED_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(sha.finalize())),
            read => sha.update(&buffer[..read]),
        }
    }
}

fn compare(object: &str, expected: &str, found: String) -> Result<(), ObjectError> {
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(ObjectError::Hash { object: object.to_owned(), expected: expected.to_owned(), found })
}

fn make_folder(path: &Path) -> Result<(), ObjectError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make the folder", path))
}

fn sync_folder(path: &Path) -> Result<(), ObjectError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error("sync the folder", path))
}

fn remove_if_there(path: &Path) -> Result<(), ObjectError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ObjectError::Io { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ObjectError + use<> {
    let path = path.to_owned();
    move |source| ObjectError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::samples::{START, recording};

    fn store() -> (tempfile::TempDir, Objects) {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(&dir.path().join("audio")).unwrap();
        (dir, objects)
    }

    fn spooled(dir: &tempfile::TempDir, bytes: &[u8]) -> (PathBuf, String) {
        let path = dir.path().join("spooled");
        fs::write(&path, bytes).unwrap();
        (path, hex::encode(Sha256::digest(bytes)))
    }

    #[test]
    fn what_is_put_comes_back_under_a_name_without_a_person_in_it() {
        let (dir, objects) = store();
        assert!(objects.is_empty().unwrap());
        let (sealed, sha256) = spooled(&dir, b"sealed audio");
        let object = objects.put(recording(1), START, &sealed, &sha256).unwrap();
        assert_eq!(object, format!("2026/11/{}.earmark", recording(1)));
        objects.verify(&object, &sha256).unwrap();
        let mut bytes = Vec::new();
        objects.read(&object).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"sealed audio");
        assert!(sealed.exists(), "removing the spool's file is the caller's");
        assert!(!objects.is_empty().unwrap());
        assert_eq!(fs::read_dir(objects.root.join(INCOMING)).unwrap().count(), 0);
        let mode = fs::metadata(objects.root.join(&object)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }

    #[test]
    fn an_object_is_written_once() {
        let (dir, objects) = store();
        let (sealed, sha256) = spooled(&dir, b"first");
        let object = objects.put(recording(1), START, &sealed, &sha256).unwrap();
        assert_eq!(
            objects.put(recording(1), START, &sealed, &sha256).unwrap(),
            object,
            "the same again is no change"
        );
        let (sealed, other) = spooled(&dir, b"second");
        let error = objects.put(recording(1), START, &sealed, &other).unwrap_err();
        assert!(matches!(error, ObjectError::Exists { .. }));
        objects.verify(&object, &sha256).unwrap();
    }

    #[test]
    fn a_spooled_file_with_another_hash_never_becomes_an_object() {
        let (dir, objects) = store();
        let (sealed, _) = spooled(&dir, b"damaged");
        let error = objects.put(recording(1), START, &sealed, &"00".repeat(32)).unwrap_err();
        assert!(matches!(error, ObjectError::Hash { .. }));
        assert!(objects.is_empty().unwrap());
        assert!(sealed.exists());
    }

    #[test]
    fn what_a_crash_left_incoming_is_no_object_and_no_hindrance() {
        let (dir, objects) = store();
        fs::write(objects.root.join(INCOMING).join(recording(1).to_string()), b"half").unwrap();
        assert!(objects.is_empty().unwrap());
        let (sealed, sha256) = spooled(&dir, b"whole");
        let object = objects.put(recording(1), START, &sealed, &sha256).unwrap();
        objects.verify(&object, &sha256).unwrap();
    }

    #[test]
    fn a_changed_or_missing_object_is_told() {
        let (dir, objects) = store();
        let (sealed, sha256) = spooled(&dir, b"audio");
        let object = objects.put(recording(1), START, &sealed, &sha256).unwrap();
        let path = objects.root.join(&object);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"audiO").unwrap();
        assert!(matches!(objects.verify(&object, &sha256).unwrap_err(), ObjectError::Hash { .. }));
        fs::remove_file(&path).unwrap();
        assert!(matches!(objects.verify(&object, &sha256).unwrap_err(), ObjectError::Missing { .. }));
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        let (_dir, objects) = store();
        for name in ["", "/etc/passwd", "../keys/master.key", "2026/../../keys/master.key", "./x"] {
            assert!(matches!(objects.read(name).unwrap_err(), ObjectError::Name { .. }), "{name}");
        }
    }
}
