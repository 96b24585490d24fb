//! How the service and its peers stand, as the running service itself says at its operations port.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::commands::Failure;
use crate::config::Config;

/// The operations port is on this machine, or near.
const PATIENCE: Duration = Duration::from_secs(5);
/// A thousand peers have a megabyte of figures.
const MOST_BYTES: u64 = 4 << 20;

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Standing {
    /// Whether new calls are taken.
    pub(super) ready: bool,
    /// What is away or failing while calls go on, in words.
    pub(super) why: Vec<String>,
    pub(super) peers: Vec<PeerStanding>,
    /// When the certificate that is in force expires, in Unix time; null without a `tls:` listener.
    pub(super) certificate_expires_s: Option<u64>,
}

/// How a peer stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PeerStanding {
    pub(super) name: String,
    /// Whether it has been found and has shown nothing bad since it last answered; null: not known.
    pub(super) up: Option<bool>,
    /// Whether the gateway is registered with it; null where it does not register.
    pub(super) registered: Option<bool>,
}

/// What of `/readyz` is used.
#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    why: Vec<String>,
}

impl Standing {
    /// Asks the service.
    pub(super) async fn ask(config: &Config) -> Result<Self, Failure> {
        let readiness = get(config.ops, "/readyz").await?;
        let figures = get(config.ops, "/metrics").await?;
        let peers = config.gateway.peers.iter().map(|peer| peer.name.as_str());
        Self::read(&readiness, &figures, peers)
            .map_err(|source| anyhow::Error::from(source).context(of(config.ops)))
            .map_err(Failure::Unavailable)
    }

    fn read<'a>(
        readiness: &str,
        figures: &str,
        peers: impl Iterator<Item = &'a str>,
    ) -> Result<Self, serde_json::Error> {
        let Readiness { ready, why } = serde_json::from_str(readiness)?;
        let peer = |name: &str| {
            let of_peer = |figure: &str| figure_of(figures, &format!("{figure}{{peer=\"{name}\"}}"));
            PeerStanding {
                name: name.to_owned(),
                up: of_peer("earmark_peer_up").map(|value| value > 0),
                registered: of_peer("earmark_peer_registered").map(|value| value > 0),
            }
        };
        Ok(Self {
            ready,
            why,
            peers: peers.map(peer).collect(),
            certificate_expires_s: figure_of(figures, "earmark_certificate_expiry_timestamp_seconds"),
        })
    }

    /// What is not as it should be, a sentence each. `on_disk_s` is when the certificate in the file expires.
    pub(super) fn faults(&self, on_disk_s: Option<u64>, now_s: u64) -> Vec<String> {
        let mut faults = self.why.clone();
        for peer in &self.peers {
            if peer.up == Some(false) {
                faults.push(format!("peer \"{}\" is not found, or does not answer", peer.name));
            }
            if peer.registered == Some(false) {
                faults.push(format!("not registered with peer \"{}\"; the log says why", peer.name));
            }
        }
        match self.certificate_expires_s {
            Some(expires_s) if expires_s <= now_s => {
                faults.push("the certificate in force has expired: renew it and send SIGHUP".to_owned());
            }
            Some(_) if on_disk_s != self.certificate_expires_s => faults.push(
                "sip.tls.certificate: another one than the service has in force; send SIGHUP".to_owned(),
            ),
            _ => {}
        }
        faults
    }
}

fn figure_of(figures: &str, name: &str) -> Option<u64> {
    figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The body of a page of the operations port.
async fn get(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let failed = |source| Failure::Io { what: of(address), source };
    let answer = tokio::time::timeout(PATIENCE, exchange(address, path)).await;
    let answer = answer.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn of(address: SocketAddr) -> String {
    format!("the service does not answer at http://{address} (ops.listen); is it running?")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const FIGURES: &str = "# TYPE earmark_peer_up gauge\nearmark_peer_up{peer=\"pbx\"} 0\n\
                           earmark_peer_up{peer=\"pbx2\"} 1\nearmark_peer_registered{peer=\"pbx2\"} 0\n\
                           earmark_certificate_expiry_timestamp_seconds 1000\n# EOF\n";

    fn standing(figures: &str) -> Standing {
        let readiness = r#"{"ready":true,"degraded":[],"why":[],"undelivered_entries":0}"#;
        Standing::read(readiness, figures, ["pbx", "pbx2", "new"].into_iter()).unwrap()
    }

    #[test]
    fn what_the_service_says_is_read_peer_by_peer() {
        let standing = standing(FIGURES);
        let told = standing.peers.iter().map(|peer| (peer.up, peer.registered)).collect::<Vec<_>>();
        assert_eq!(told, [(Some(false), None), (Some(true), Some(false)), (None, None)]);
        let faults = standing.faults(Some(1_000), 999);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("\"pbx\"") && faults[1].contains("\"pbx2\""), "{faults:?}");
    }

    #[test]
    fn a_certificate_that_is_over_or_not_in_force_is_a_fault() {
        let figures = "earmark_certificate_expiry_timestamp_seconds 1000\n";
        let faults = |on_disk_s, now_s| standing(figures).faults(on_disk_s, now_s).concat();
        assert_eq!(faults(Some(1_000), 999), "");
        assert!(faults(Some(1_000), 1_000).contains("has expired"));
        assert!(faults(Some(2_000), 999).contains("SIGHUP"));
        assert_eq!(standing("").faults(None, 5), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_out_of_reach() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = get(free, "/readyz").await.unwrap_err();
        assert!(failure.to_string().contains("ops.listen"), "{failure}");
    }
}
