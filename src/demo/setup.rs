//! The demonstration's folder: a configuration as an administrator would write it, on free ports of the
//! loopback network.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::phone::Phone;

/// The dispatch line.
pub(super) const DISPATCH_LINE: &str = "+18607427331";

/// The consent line.
pub(super) const CONSENT_LINE: &str = "+18607427310";

/// How long a party has to answer the question.
pub(super) const ANSWER_TIMEOUT_S: u64 = 4;

/// The first line of the configuration: the sign that a folder is ours.
const MARK: &str = "# Written by `earmark demo`. It is written anew each time the demonstration runs.";

/// The configuration's name in the folder.
const CONFIG: &str = "earmark.toml";

/// How often a port free for both UDP and TCP is looked for.
const PORT_TRIES: usize = 50;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Somebody else's files are in it.
    #[error("{dir} is not empty and was not made by `earmark demo`; name another folder with --dir")]
    NotOurs {
        /// The folder.
        dir: PathBuf,
    },
    /// It cannot be made or read.
    #[error("cannot use {dir}")]
    Io {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything that stands before the gateway is started.
pub(super) struct Setup {
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
    /// Where the gateway will listen.
    pub(super) gateway: SocketAddr,
    pub(super) carrier: Phone,
    pub(super) pbx: Phone,
}

impl Setup {
    /// Makes or reuses the folder, puts up the PBX and the carrier, and writes the configuration.
    pub(super) async fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let dir = claim(dir)?;
        let pbx = Phone::bind((Ipv4Addr::new(127, 0, 0, 2), 0).into(), "pbx").await.context("the PBX")?;
        let carrier =
            Phone::bind((Ipv4Addr::new(127, 0, 0, 3), 0).into(), "carrier").await.context("the carrier")?;
        let gateway = free_address().context("no free port for the gateway")?;
        let ops = free_address().context("no free port for the gateway's metrics")?;
        let config = dir.join(CONFIG);
        let text = configuration(gateway, ops, pbx.local(), carrier.local());
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { dir, config, gateway, carrier, pbx })
    }
}

/// The folder, made if need be. One of a former demonstration is used again, with the calls it holds.
fn claim(dir: &Path) -> Result<PathBuf, DirError> {
    let failed = |source| DirError::Io { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let dir = dir.canonicalize().map_err(failed)?;
    let empty = fs::read_dir(&dir).map_err(failed)?.next().is_none();
    let ours = fs::read_to_string(dir.join(CONFIG)).is_ok_and(|text| text.starts_with(MARK));
    if empty || ours { Ok(dir) } else { Err(DirError::NotOurs { dir }) }
}

/// An address whose port was free for UDP and TCP a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = stream.local_addr()?;
        match UdpSocket::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn configuration(gateway: SocketAddr, ops: SocketAddr, pbx: SocketAddr, carrier: SocketAddr) -> String {
    format!(
        r#"{MARK}

[node]
name = "demo"
data_dir = "data"
timezone = "America/New_York"
drain_s = 5

[sip]
listen = ["udp:{gateway}", "tcp:{gateway}"]
max_calls = 50

[media]
address = "{media}"
ports = "20000-29999"

[numbering]
country = "1"
area_code = "860"
outside_prefix = "9"
emergency = ["911", "9911", "933"]

[[peers]]
name = "pbx"
side = "district"
uri = "sip:{pbx};transport=udp"
party_signals = "verified"

[[peers]]
name = "carrier"
side = "public"
uri = "sip:{carrier};transport=udp"
party_signals = "verified"

[[lines]]
number = "{DISPATCH_LINE}"
name = "Police dispatch 1"
class = "dispatch"
retention = "RT-DISP-ROUTINE"

[[lines]]
number = "{CONSENT_LINE}"
name = "Superintendent's office"
class = "consent"
ask = "every-call"
retention = "RT-CONSENT-REC"

[consent]
languages = ["en"]                 # one, for a short demonstration; a district asks in two
answer_timeout_s = {ANSWER_TIMEOUT_S}
attempts = 1
preamble_memory_mb = 6             # fits the 8 MiB of locked memory that most systems allow anybody

[ops]
listen = "{ops}"
"#,
        media = gateway.ip(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_fresh_folder_and_a_former_one_are_taken_and_somebody_elses_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/demo");
        let claimed = claim(&dir).unwrap();
        assert!(claimed.is_absolute());
        let address = "127.0.0.1:5060".parse().unwrap();
        fs::write(dir.join(CONFIG), configuration(address, address, address, address)).unwrap();
        assert_eq!(claim(&dir).unwrap(), claimed);
        fs::write(dir.join(CONFIG), "[node]\n").unwrap();
        assert!(matches!(claim(&dir), Err(DirError::NotOurs { .. })));
        assert_eq!(fs::read_to_string(dir.join(CONFIG)).unwrap(), "[node]\n");
    }

    #[test]
    fn a_file_in_the_folders_place_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(claim(file.path()), Err(DirError::Io { .. })));
    }
}
