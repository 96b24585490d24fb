//! The master key and the recordings' own keys.
//!
//! Each recording has a fresh 256-bit key; what is stored of it is wrapped: 1 byte of version, a random
//! 96-bit nonce, then the key under ChaCha20-Poly1305 (RFC 8439) with the recording's id as additional
//! data, so that one recording's wrapped key opens no other. The master key is kept outside the
//! database, in a file that only its owner can read, or comes from the environment. Who has lost it has
//! lost the recordings: backing it up is the operator's (docs/OPERATIONS.md).
//!
//! Left out: rotation (re-wrapping), keys of destruction epochs, split custody.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use consent::RecordingId;
use zeroize::Zeroizing;

/// First byte of a wrapped key: this layout.
const VERSION: u8 = 1;

/// ChaCha20-Poly1305's nonce (RFC 8439 §2.8). Random: 2^32 keys may be wrapped before a repeat is likelier
/// than 2^-32 (NIST SP 800-38D's bound for 96-bit nonces), which no district will record.
const NONCE_BYTES: usize = 12;

/// Size of a wrapped key: version, nonce, key, tag.
pub const WRAPPED_KEY_BYTES: usize = 1 + NONCE_BYTES + 32 + 16;

/// Sets wrapped keys apart from anything else that might be sealed under the same key.
const DOMAIN: &[u8] = b"earmark recording key 1";

/// The key that wraps the recordings' keys. Zeroed when dropped; never printed.
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Whether recordings exist that were sealed under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recordings {
    /// None: a new master key harms nothing.
    None,
    /// There are some: a new master key would hide that theirs is lost.
    Exist,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No file.
    #[error("there is no key file {}; restore it from its backup, or start the service once to make one", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("the key file {} can be read by others (mode {mode:03o}); make it yours alone: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hexadecimal digits. What it holds instead is not shown.
    #[error("{origin} does not hold a key of 64 hexadecimal digits; restore it from its backup")]
    Malformed {
        /// The file or the environment variable.
        origin: String,
    },
    /// A file is there already.
    #[error("there is a key file {} already; it is not replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A new key was asked for, and recordings exist under another.
    #[error("recordings exist, but not the key file {} that opens them; restore it from its backup (a new key would not open them)", path.display())]
    Lost {
        /// Where it should be.
        path: PathBuf,
    },
    /// The environment variable is not set or no text.
    #[error("the environment variable {name} is not set; give it the key, 64 hexadecimal digits")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The file system objects.
    #[error("cannot read or write the key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("no random numbers for a key")]
    Random {
        /// What the system says.
        source: getrandom::Error,
    },
    /// A wrapped key is not one of this recording under this master key.
    #[error(
        "the key of recording {recording} cannot be unwrapped: another master key, another recording, or damage"
    )]
    Unwrap {
        /// The recording.
        recording: RecordingId,
    },
    /// The cipher failed (its only cause is a plaintext of impossible length).
    #[error("the key of recording {recording} cannot be wrapped")]
    Wrap {
        /// The recording.
        recording: RecordingId,
    },
}

impl MasterKey {
    /// Reads the key file: 64 hexadecimal digits, readable by nobody but its owner.
    ///
    /// # Errors
    /// If it is missing, exposed or malformed.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        let mut file = fs::File::open(path).map_err(failed)?;
        // Of the open file, so that nobody can swap it between the look and the reading.
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new([0; 80]);
        let length = read_up_to(&mut file, &mut *text).map_err(failed)?;
        Self::parse(&text[..length]).ok_or_else(|| KeyError::Malformed { origin: path.display().to_string() })
    }

    /// Makes a new key and its file (mode 0600, in a folder of mode 0700).
    ///
    /// # Errors
    /// If there is a file already, or recordings exist for which there should be one.
    pub fn create(path: &Path, recordings: Recordings) -> Result<Self, KeyError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        if path.exists() {
            return Err(KeyError::Exists { path: path.to_owned() });
        }
        if recordings == Recordings::Exist {
            return Err(KeyError::Lost { path: path.to_owned() });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let key = random()?;
        let mut text = Zeroizing::new([0; 65]);
        // 64 digits for 32 bytes: the lengths fit.
        hex::encode_to_slice(key.as_slice(), &mut text[..64])
            .map_err(|error| failed(io::Error::other(error)))?;
        text[64] = b'\n';
        write_new(folder, path, &*text).map_err(failed)?;
        Ok(Self(key))
    }

    /// Takes the key from an environment variable: 64 hexadecimal digits.
    ///
    /// # Errors
    /// If it is not set or malformed.
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        let text = std::env::var(name)
            .map(Zeroizing::new)
            .map_err(|_| KeyError::NoVariable { name: name.to_owned() })?;
        Self::parse(text.as_bytes())
            .ok_or_else(|| KeyError::Malformed { origin: format!("the environment variable {name}") })
    }

    /// Wraps a recording's key for storing; [`WRAPPED_KEY_BYTES`] bytes.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn wrap(&self, recording: RecordingId, key: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let aad = additional(recording);
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), Payload { msg: key, aad: &aad })
            .map_err(|_| KeyError::Wrap { recording })?;
        Ok([&[VERSION], &nonce[..], &sealed].concat())
    }

    /// Unwraps a recording's key.
    ///
    /// # Errors
    /// If it was not wrapped by this master key for this recording, or is damaged.
    pub fn unwrap(&self, recording: RecordingId, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let refused = || KeyError::Unwrap { recording };
        if wrapped.len() != WRAPPED_KEY_BYTES || wrapped.first() != Some(&VERSION) {
            return Err(refused());
        }
        let (nonce, sealed) = wrapped[1..].split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| refused())?;
        let aad = additional(recording);
        let opened = self.cipher().decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: &aad });
        let opened = Zeroizing::new(opened.map_err(|_| refused())?);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(opened.get(..32).ok_or_else(refused)?);
        Ok(key)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        let key: &Key = (&*self.0).into();
        ChaCha20Poly1305::new(key)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice()).ok()?;
        Some(Self(key))
    }
}

/// A fresh key for one recording.
///
/// # Errors
/// If the system has no randomness.
pub fn fresh_dek() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    random()
}

/// Fills `bytes` with the system's random numbers.
///
/// # Errors
/// If the system has no randomness.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|source| KeyError::Random { source })
}

fn random() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    fill_random(key.as_mut_slice())?;
    Ok(key)
}

fn additional(recording: RecordingId) -> Vec<u8> {
    [DOMAIN, &recording.0.to_be_bytes()].concat()
}

fn read_up_to(file: &mut fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Writes a file that does not exist, whole or not at all.
fn write_new(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&partial, path));
    fs::remove_file(&partial)?;
    written?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::samples::recording;

    #[test]
    fn a_created_key_is_private_and_opens_what_it_wrapped_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/master.key");
        let key = MasterKey::create(&path, Recordings::None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no partial file stays");
        let dek = fresh_dek().unwrap();
        let wrapped = key.wrap(recording(1), &dek).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES);
        let again = MasterKey::load(&path).unwrap();
        assert_eq!(*again.unwrap(recording(1), &wrapped).unwrap(), *dek);
    }

    #[test]
    fn a_wrapped_key_opens_no_other_recording_and_no_bit_of_it_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::create(&dir.path().join("a"), Recordings::None).unwrap();
        let other = MasterKey::create(&dir.path().join("b"), Recordings::None).unwrap();
        let wrapped = key.wrap(recording(1), &fresh_dek().unwrap()).unwrap();
        assert!(key.unwrap(recording(2), &wrapped).is_err());
        assert!(other.unwrap(recording(1), &wrapped).is_err());
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.unwrap(recording(1), &changed).is_err());
        }
        for length in 0..wrapped.len() {
            assert!(key.unwrap(recording(1), &wrapped[..length]).is_err());
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_way_to_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        MasterKey::create(&path, Recordings::None).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = MasterKey::load(&path).err().unwrap();
            assert!(matches!(error, KeyError::Exposed { mode: seen, .. } if seen == mode));
            assert!(error.to_string().contains("chmod 600"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(MasterKey::load(&path).is_ok());
    }

    #[test]
    fn a_new_key_never_takes_the_place_of_one_that_is_there_or_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        assert!(matches!(MasterKey::load(&path).err().unwrap(), KeyError::Missing { .. }));
        assert!(matches!(MasterKey::create(&path, Recordings::Exist).err().unwrap(), KeyError::Lost { .. }));
        assert!(!path.exists());
        MasterKey::create(&path, Recordings::None).unwrap();
        let before = fs::read(&path).unwrap();
        for recordings in [Recordings::None, Recordings::Exist] {
            assert!(matches!(MasterKey::create(&path, recordings).err().unwrap(), KeyError::Exists { .. }));
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        for text in ["", "secret", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32), &"ab".repeat(200)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = MasterKey::load(&path).err().unwrap();
            assert!(matches!(error, KeyError::Malformed { .. }), "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
        assert!(matches!(
            MasterKey::from_env("EARMARK_NO_SUCH_KEY").err().unwrap(),
            KeyError::NoVariable { .. }
        ));
    }
}
