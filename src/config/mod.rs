//! The configuration: read, judged, and typed once. Nothing after this module sees a raw value.

mod account;
mod allowance;
mod judge;
mod peers;
mod raw;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use consent::{NumberBlock, RuleSet};

pub use tls::{TlsFiles, TlsRead};

use account::LockedAccount;

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// This gateway's name in call records.
    pub node: String,
    /// Below it lie the journal, the spool and, unless set otherwise, everything else.
    pub data_dir: PathBuf,
    /// How long calls may go on after SIGTERM.
    pub drain: Duration,
    /// What the SIP core is told; no peer has an account before [`Self::unlocked`].
    pub gateway: sip_gateway::Config,
    /// Certificates and keys, if there is a `tls:` listener.
    pub tls: Option<TlsFiles>,
    /// DNS servers for the peers' names; none: the system's.
    pub dns: Vec<SocketAddr>,
    /// The accounts with peers, whose passwords have not been read.
    accounts: Vec<LockedAccount>,
    /// Where media is bound and advertised.
    pub media_address: IpAddr,
    /// From which ports.
    pub media_ports: RangeInclusive<u16>,
    /// The rules: version 1 is the file's.
    pub rules: RuleSet,
    /// The district's numbers that are no lines.
    pub own_numbers: Vec<NumberBlock>,
    /// Prompt languages, in the order in which they are played.
    pub languages: Vec<String>,
    /// The district's own prompts, if any.
    pub prompts: Option<PathBuf>,
    /// Memory for all preambles and look-backs together.
    pub preamble_memory_bytes: usize,
    /// How long consented audio waits in locked memory.
    pub lookback_ms: u64,
    /// Storage.
    pub storage: Storage,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub ops: SocketAddr,
    /// What `check` points out: accepted, but not as the writer may think.
    pub remarks: Vec<String>,
}

/// Where records and audio are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// `sqlite:PATH`.
    pub database: String,
    /// The folder of audio objects.
    pub audio: PathBuf,
    /// Where the master key is.
    pub key: KeySource,
    /// A second spool for dispatch lines.
    pub second_spool: Option<PathBuf>,
}

/// Where the master key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file; made at the first start.
    File(PathBuf),
    /// `env:NAME`: 64 hexadecimal digits in an environment variable.
    Environment(String),
}

/// A configuration that cannot be served. `Display` is the whole message for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a key or type that the contract does not have.
    #[error("{}:{line}: {key}: {problem}; {mend}", file.display())]
    Shape {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Which key, as a path.
        key: String,
        /// What is wrong.
        problem: String,
        /// How to mend it.
        mend: String,
    },
    /// A value that makes no sense.
    #[error("{}: {key}: {problem}; {mend}", file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// Which key, as a path.
        key: String,
        /// What is wrong.
        problem: String,
        /// How to mend it.
        mend: String,
    },
    /// A value that makes sense, but what it names cannot be used.
    #[error("{}: {key}: {problem}", file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// Which key, as a path.
        key: &'static str,
        /// What is wrong with what it names, and how to mend it.
        problem: String,
    },
}

impl Config {
    /// Reads and judges `file`. Relative paths in it are relative to its own folder.
    ///
    /// # Errors
    /// The first fault found, with file, key and mend.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Judges `text` as if read from `file`.
    ///
    /// # Errors
    /// The first fault found, with file, key and mend.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw = shape(file, text)?;
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        judge::judge(raw, file, &folder).map_err(|fault| fault.of(file))
    }

    /// Reads and checks certificates and keys as their files are now, if there is a `tls:` listener.
    ///
    /// # Errors
    /// The first that cannot be used, with key, file and mend.
    pub fn read_tls(&self) -> Result<Option<TlsRead>, ConfigError> {
        self.tls.as_ref().map(TlsFiles::read).transpose().map_err(|fault| fault.of(&self.file))
    }

    /// Reads the passwords of the accounts with peers, as only the service needs to.
    ///
    /// # Errors
    /// The first password that cannot be had, with file, key and mend.
    pub fn unlocked(mut self) -> Result<Self, ConfigError> {
        for locked in &self.accounts {
            let account = locked.unlock().map_err(|fault| fault.of(&self.file))?;
            if let Some(peer) = self.gateway.peers.get_mut(locked.peer) {
                peer.account = Some(account);
            }
        }
        Ok(self)
    }

    /// Tries whether the service will have all passwords; a remark for each that only it can see.
    ///
    /// # Errors
    /// As [`Self::unlocked`].
    pub fn try_passwords(&self) -> Result<Vec<String>, ConfigError> {
        let mut remarks = Vec::new();
        for locked in &self.accounts {
            if locked.is_out_of_sight() {
                remarks.push(format!("peers[{}].password_file: only the service can read it", locked.peer));
            } else {
                locked.unlock().map_err(|fault| fault.of(&self.file))?;
            }
        }
        Ok(remarks)
    }

    /// What `key` names cannot be used.
    pub(crate) fn unusable(&self, key: &'static str, problem: impl std::fmt::Display) -> ConfigError {
        ConfigError::Unusable { file: self.file.clone(), key, problem: problem.to_string() }
    }
}

fn shape(file: &Path, text: &str) -> Result<raw::File, ConfigError> {
    let fault = |key: String, error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        let problem = error.message().lines().collect::<Vec<_>>().join(" ");
        let mend = if problem.contains("unknown field") {
            "remove it, or correct its spelling to one of those expected".to_owned()
        } else if problem.contains("missing field") {
            "add it".to_owned()
        } else {
            "correct the value as docs/OPERATIONS.md describes it".to_owned()
        };
        ConfigError::Shape { file: file.to_owned(), line, key, problem, mend }
    };
    let parsed = toml::Deserializer::parse(text).map_err(|error| fault("(syntax)".to_owned(), &error))?;
    serde_path_to_error::deserialize(parsed).map_err(|error| {
        let key = error.path().to_string();
        fault(if key == "." { "(top level)".to_owned() } else { key }, error.inner())
    })
}

#[cfg(test)]
mod tests;
