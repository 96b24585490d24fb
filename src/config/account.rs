//! The accounts that peers and the gateway share: judged with the file, their passwords read only by who
//! needs them. The commands that print records run where a service's credentials are not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sip_gateway::{Account, Algorithm, Secret};
use zeroize::Zeroizing;

use super::judge::{Fault, fault};
use super::raw;

/// The expiry that RFC 3261 §10.2 suggests where there is no reason for another.
const REGISTER_EXPIRES_S: u32 = 3_600;

/// Shorter registrations only make traffic, longer ones outlive what they are for.
const REGISTER_BOUNDS_S: [u32; 2] = [60, 86_400];

/// Bytes of a name or realm: both go into every proven request.
const MAX_NAME_BYTES: usize = 128;

/// Bytes of a password.
const MAX_PASSWORD_BYTES: usize = 1_024;

/// How a systemd credential is named in `password_file`.
const CREDENTIAL: &str = "credential:";

/// Where systemd puts a service's credentials (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Credential(String),
}

/// An account whose password has not been read.
#[derive(Clone)]
pub(super) struct LockedAccount {
    /// Of which peer, by its place in the file.
    pub(super) peer: usize,
    source: Source,
    username: String,
    realm: Option<String>,
    algorithms: Vec<Algorithm>,
    challenge: Option<String>,
    register_s: Option<u32>,
}

impl std::fmt::Debug for LockedAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockedAccount").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why there is no password. What was read instead is never shown.
#[derive(Debug, thiserror::Error)]
enum PasswordError {
    #[error("there is no file {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} can be read by others (mode {mode:03o})", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} does not hold one line of text", path.display())]
    Malformed { path: PathBuf },
    #[error("there are no credentials: {CREDENTIALS_DIRECTORY} is not set")]
    NoCredentials,
}

impl PasswordError {
    fn mend(&self) -> String {
        match self {
            Self::Missing { path } => format!("write the password into it, and chmod 600 {}", path.display()),
            Self::Exposed { path, .. } => format!("make it yours alone: chmod 600 {}", path.display()),
            Self::Io { .. } => "let the service's account read it".to_owned(),
            Self::Malformed { .. } => {
                format!("write the password alone, in UTF-8 and at most {MAX_PASSWORD_BYTES} bytes")
            }
            Self::NoCredentials => {
                "name the credential in the unit with LoadCredential=, or give a file".to_owned()
            }
        }
    }
}

/// The account of one peer, if it has one.
pub(super) fn account(
    index: usize,
    raw: &raw::Peer,
    folder: &Path,
    node: &str,
) -> Result<Option<LockedAccount>, Fault> {
    let key = |name: &str| format!("peers[{index}].{name}");
    let Some(username) = &raw.username else {
        let needs = [
            ("password_file", raw.password_file.is_some()),
            ("realm", raw.realm.is_some()),
            ("challenge", raw.challenge == Some(true)),
            ("register", raw.register == Some(true)),
            ("register_expires_s", raw.register_expires_s.is_some()),
            ("digest_algorithms", raw.digest_algorithms.is_some()),
        ];
        return match needs.iter().find(|(_, present)| *present) {
            Some((name, _)) => fault(key(name), "there is no username", "add username, or remove the key"),
            None => Ok(None),
        };
    };
    let Some(password) = &raw.password_file else {
        return fault(key("password_file"), "missing", "name the file that holds the password of username");
    };
    let realm = raw.realm.as_ref().map(|realm| name(&key("realm"), realm)).transpose()?;
    let challenge = realm.clone().unwrap_or_else(|| node.to_owned());
    Ok(Some(LockedAccount {
        peer: index,
        source: source(&key("password_file"), password, folder)?,
        username: name(&key("username"), username)?,
        realm,
        algorithms: algorithms(&key("digest_algorithms"), raw.digest_algorithms.as_deref())?,
        challenge: (raw.challenge == Some(true)).then_some(challenge),
        register_s: register_s(&key("register_expires_s"), raw)?,
    }))
}

fn name(key: &str, text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        return fault(key, "not a name", format!("use 1 to {MAX_NAME_BYTES} bytes of text"));
    }
    Ok(text.to_owned())
}

fn source(key: &str, text: &str, folder: &Path) -> Result<Source, Fault> {
    let Some(name) = text.strip_prefix(CREDENTIAL) else { return Ok(Source::File(folder.join(text))) };
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return fault(key, "not the name of a credential", "write it as \"credential:carrier-password\"");
    }
    Ok(Source::Credential(name.to_owned()))
}

fn algorithms(key: &str, names: Option<&[String]>) -> Result<Vec<Algorithm>, Fault> {
    let Some(names) = names else { return Ok(Algorithm::ALL.to_vec()) };
    let mend = "use any of \"SHA-512-256\", \"SHA-256\" and \"MD5\"";
    if names.is_empty() {
        return fault(key, "nothing could be proven", mend);
    }
    let known = |name: &String| match Algorithm::of_token(name) {
        Some(algorithm) => Ok(algorithm),
        None => fault(key, format!("unknown algorithm \"{name}\""), mend),
    };
    names.iter().map(known).collect()
}

fn register_s(key: &str, raw: &raw::Peer) -> Result<Option<u32>, Fault> {
    let [least, most] = REGISTER_BOUNDS_S;
    match (raw.register == Some(true), raw.register_expires_s) {
        (true, Some(seconds)) if !(least..=most).contains(&seconds) => {
            fault(key, format!("{seconds} is out of bounds"), format!("give {least} to {most}"))
        }
        (true, seconds) => Ok(Some(seconds.unwrap_or(REGISTER_EXPIRES_S))),
        (false, Some(_)) => fault(key, "nothing is registered", "add register = true, or remove the key"),
        (false, None) => Ok(None),
    }
}

impl LockedAccount {
    /// Reads the password.
    pub(super) fn unlock(&self) -> Result<Account, Fault> {
        let password = match self.read() {
            Ok(password) => password,
            Err(error) => {
                let key = format!("peers[{}].password_file", self.peer);
                return fault(key, error.to_string(), error.mend());
            }
        };
        Ok(Account {
            username: self.username.clone(),
            password,
            realm: self.realm.clone(),
            algorithms: self.algorithms.clone(),
            challenge: self.challenge.clone(),
            register_s: self.register_s,
        })
    }

    /// Whether the password is where only the service can look.
    pub(super) fn is_out_of_sight(&self) -> bool {
        matches!(self.source, Source::Credential(_)) && std::env::var_os(CREDENTIALS_DIRECTORY).is_none()
    }

    fn read(&self) -> Result<Secret, PasswordError> {
        match &self.source {
            Source::File(path) => read(path, Watch::Mode),
            Source::Credential(name) => {
                let folder = std::env::var_os(CREDENTIALS_DIRECTORY).ok_or(PasswordError::NoCredentials)?;
                // Its folder is the service's alone; the mode shows access lists that systemd has set.
                read(&Path::new(&folder).join(name), Watch::Nothing)
            }
        }
    }
}

/// Whether a file's mode is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Mode,
    Nothing,
}

fn read(path: &Path, watch: Watch) -> Result<Secret, PasswordError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PasswordError::Missing { path: path.to_owned() },
        _ => PasswordError::Io { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, so that nobody can swap it between the look and the reading.
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if watch == Watch::Mode && mode & 0o077 != 0 {
        return Err(PasswordError::Exposed { path: path.to_owned(), mode });
    }
    // One allocation, so that no copy of a part stays behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_BYTES + 3));
    file.take(MAX_PASSWORD_BYTES as u64 + 3).read_to_end(&mut text).map_err(failed)?;
    password(&text).ok_or_else(|| PasswordError::Malformed { path: path.to_owned() })
}

/// The one line of a file.
fn password(text: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let good = !line.is_empty() && line.len() <= MAX_PASSWORD_BYTES && !line.chars().any(char::is_control);
    good.then(|| Secret::new(Zeroizing::new(line.to_owned())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn one_line_is_the_password_whatever_ends_it() {
        for text in ["open sesame", "open sesame\n", "open sesame\r\n"] {
            let file = file(text.as_bytes(), 0o600);
            let expected = Secret::new(Zeroizing::new("open sesame".to_owned()));
            assert!(read(file.path(), Watch::Mode).unwrap() == expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_password_is_refused_and_not_shown() {
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        for text in ["", "\n", "secret\nsecond", "secret\n\n", "sec\u{1}ret", &long] {
            let error = read(file(text.as_bytes(), 0o600).path(), Watch::Mode).unwrap_err();
            assert!(matches!(error, PasswordError::Malformed { .. }), "{text:?}");
            assert!(!error.to_string().contains("sec") && !error.mend().contains("sec"));
        }
        assert!(read(file(b"\xff\xfe", 0o600).path(), Watch::Mode).is_err());
    }

    #[test]
    fn a_password_that_others_can_read_is_refused_with_the_way_to_mend_it() {
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let file = file(b"secret", mode);
            let error = read(file.path(), Watch::Mode).unwrap_err();
            assert!(matches!(error, PasswordError::Exposed { mode: seen, .. } if seen == mode));
            assert!(error.mend().contains("chmod 600"));
            assert!(read(file.path(), Watch::Nothing).is_ok(), "systemd's folder keeps others out");
        }
        assert!(read(file(b"secret", 0o400).path(), Watch::Mode).is_ok());
    }

    #[test]
    fn a_credential_is_a_plain_name() {
        let folder = Path::new("/etc/earmark");
        let parsed = |text| source("k", text, folder).map_err(|fault| fault.problem);
        assert_eq!(parsed("credential:carrier"), Ok(Source::Credential("carrier".to_owned())));
        assert_eq!(parsed("keys/carrier"), Ok(Source::File("/etc/earmark/keys/carrier".into())));
        for text in ["credential:", "credential:../x", "credential:a/b", "credential:."] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
