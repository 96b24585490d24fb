//! What `[sip.tls]` and the peers by TLS name: judged with all else, read from its files when the service starts
//! and at SIGHUP.
//!
//! Nothing here says anything of what a key file holds.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sip_gateway::locate::Host;
use sip_gateway::shell::tls::{Authorities, Identity, SecurePeer, Tls, TlsError};
use sip_gateway::{Peer, Transport};
use zeroize::Zeroizing;

use super::judge::{Fault, fault};
use super::raw;

/// More than any chain or bundle of authorities.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where certificates and keys are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our chain, our own certificate first.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) private_key: PathBuf,
    /// Who signs the certificates of those that come to us; without it nobody need show one.
    pub(super) client_ca: Option<PathBuf>,
    /// By `PeerId`: those that may be reached by TLS.
    pub(super) peers: Vec<Option<TlsPeer>>,
}

/// A peer that may be reached by TLS.
#[derive(Clone, Debug)]
pub(super) struct TlsPeer {
    pub(super) peer: String,
    /// What its certificate must be for.
    pub(super) name: String,
    /// Who signs it; without it the authorities of the operating system.
    pub(super) ca_file: Option<PathBuf>,
}

/// What handshakes go by.
#[derive(Debug)]
pub struct TlsRead {
    /// For the sockets.
    pub tls: Tls,
    /// When our certificate, or one of its chain, expires, in Unix seconds.
    pub expires_s: u64,
}

/// Which files TLS needs, if there is a listener for it.
pub(super) fn judge(
    file: &raw::File,
    gateway: &sip_gateway::Config,
    folder: &Path,
    remarks: &mut Vec<String>,
) -> Result<Option<TlsFiles>, Fault> {
    let listens = gateway.listeners.iter().any(|listener| listener.transport == Transport::Tls);
    let must = gateway.peers.iter().position(|peer| peer.place.transport == Some(Transport::Tls));
    match (&file.sip.tls, listens, must) {
        (_, false, Some(index)) => fault(
            format!("peers[{index}].uri"),
            "a peer by TLS, and no tls: listener from which to reach it",
            "add one to sip.listen, such as \"tls:127.0.0.1:5061\"",
        ),
        (Some(_), false, None) => {
            remarks.push("[sip.tls]: there is no tls: listener; the table is not used".to_owned());
            Ok(None)
        }
        (None, true, _) => fault(
            "sip.tls",
            "missing: a tls: listener needs a certificate",
            "add [sip.tls] with certificate and private_key",
        ),
        (None, false, None) => Ok(None),
        (Some(tls), true, _) => {
            let peers = file.peers.iter().zip(&gateway.peers);
            Ok(Some(TlsFiles {
                certificate: folder.join(&tls.certificate),
                private_key: folder.join(&tls.private_key),
                client_ca: tls.client_ca.as_ref().map(|path| folder.join(path)),
                peers: peers.map(|(raw, peer)| TlsPeer::of(raw, peer, folder)).collect(),
            }))
        }
    }
}

impl TlsFiles {
    /// Reads and checks all of them.
    ///
    /// # Errors
    /// The first that cannot be used, with its mend.
    pub(super) fn read(&self) -> Result<TlsRead, Fault> {
        let identity = self.identity()?;
        let client_ca =
            self.client_ca.as_deref().map(|path| authorities("sip.tls.client_ca", path)).transpose()?;
        let peers = self
            .peers
            .iter()
            .enumerate()
            .map(|(index, peer)| peer.as_ref().map(|peer| peer.read(index)).transpose())
            .collect::<Result<_, _>>()?;
        let tls = Tls::new(&identity, client_ca, peers).map_err(|error| unusable("sip.tls", None, &error))?;
        Ok(TlsRead { tls, expires_s: identity.expires_s() })
    }

    fn identity(&self) -> Result<Identity, Fault> {
        let certificate = read("sip.tls.certificate", &self.certificate)?;
        let key = read_key(&self.private_key)?;
        Identity::from_pem(&certificate, &key).map_err(|error| match error {
            TlsError::NoCertificate => unusable("sip.tls.certificate", Some(&self.certificate), &error),
            error => unusable("sip.tls.private_key", Some(&self.private_key), &error),
        })
    }
}

impl TlsPeer {
    /// DNS may lead a name without transport and port to TLS; the certificate must be for the name all the
    /// same, whatever host DNS names (RFC 5922 §4).
    fn of(raw: &raw::Peer, peer: &Peer, folder: &Path) -> Option<Self> {
        let host = match (&peer.place.host, peer.place.transport) {
            (Host::Name(name), None) if peer.place.port.is_none() => name.clone(),
            (Host::Name(name), Some(Transport::Tls)) => name.clone(),
            (Host::Address(ip), Some(Transport::Tls)) => ip.to_string(),
            _ => return None,
        };
        Some(Self {
            peer: peer.name.clone(),
            name: raw.certificate_name.clone().unwrap_or(host),
            ca_file: raw.ca_file.as_ref().map(|path| folder.join(path)),
        })
    }

    fn read(&self, index: usize) -> Result<SecurePeer, Fault> {
        let authorities = match &self.ca_file {
            Some(path) => authorities(&format!("peers[{index}].ca_file"), path)?,
            // Some of them may be unreadable; those that are not count.
            None => Authorities::from_system(rustls_native_certs::load_native_certs().certs),
        };
        Ok(SecurePeer { peer: self.peer.clone(), name: self.name.clone(), authorities })
    }
}

fn authorities(key: &str, path: &Path) -> Result<Authorities, Fault> {
    Authorities::from_pem(&read(key, path)?).map_err(|error| unusable(key, Some(path), &error))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| unreadable(key, path, &error))?;
    Ok(bytes)
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let key = "sip.tls.private_key";
    let failed = |error: io::Error| unreadable(key, path, &error);
    let file = File::open(path).map_err(failed)?;
    // Of the open file, so that nobody can swap it between the look and the reading.
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Fault {
            key: key.to_owned(),
            problem: format!("{} can be read by others (mode {mode:03o})", path.display()),
            mend: format!("make it yours alone: chmod 600 {}", path.display()),
        });
    }
    // As large as it will be, so that growing leaves no copies behind.
    let size = usize::try_from(metadata.len().min(MAX_FILE_BYTES)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn unreadable(key: &str, path: &Path, error: &io::Error) -> Fault {
    Fault {
        key: key.to_owned(),
        problem: format!("{} cannot be read: {error}", path.display()),
        mend: "put the file there, readable by the service's account, or correct the path".to_owned(),
    }
}

fn unusable(key: &str, path: Option<&Path>, error: &TlsError) -> Fault {
    let mend = match error {
        TlsError::NoCertificate => {
            "give a PEM file with -----BEGIN CERTIFICATE-----, our own certificate first"
        }
        TlsError::NoKey => "give the key as PEM without a passphrase (openssl pkey -in KEY -out KEY.pem)",
        TlsError::UnusableKey => "issue a certificate for a key of one of these kinds",
        TlsError::KeyOfAnother => "give the key with which this certificate was requested",
        TlsError::Name { .. } => "correct the peer's uri or its certificate_name",
        TlsError::Setup { .. } => "issue certificates for TLS 1.2 and 1.3",
    };
    let place = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
    Fault { key: key.to_owned(), problem: format!("{place}{error}"), mend: mend.to_owned() }
}
