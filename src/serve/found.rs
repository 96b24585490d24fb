//! Where the peers at names were last found, kept so that a start does not need DNS (RFC 8767 in spirit).
//!
//! One line a step: `NAME URI TIER WEIGHT TARGET…`. Written whenever DNS leads elsewhere, by a task that waits
//! for the disk instead of the calls; what cannot be written or read costs nothing while DNS answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sip_gateway::locate::{Plan, Step};
use sip_gateway::{Peer, PeerId};
use tokio::sync::watch;

/// The plans of the peers at names, by [`PeerId`].
#[derive(Debug)]
pub(super) struct Found {
    /// What each line begins with: name and URI, so that a plan is not taken for another place's.
    labels: Vec<String>,
    plans: BTreeMap<PeerId, Plan>,
    text: watch::Sender<String>,
}

impl Found {
    /// Reads the file below `data_dir` and writes it from now on. Needs to be called in a tokio runtime.
    pub(super) fn open(data_dir: &Path, peers: &[Peer]) -> Self {
        let path = data_dir.join("found-peers");
        let labels: Vec<String> = peers.iter().map(label).collect();
        let plans = match fs::read_to_string(&path) {
            Ok(text) => read(&text, peers, &labels),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "where the peers were is not known");
                }
                BTreeMap::new()
            }
        };
        let (text, changes) = watch::channel(String::new());
        tokio::spawn(keep(path, changes));
        Self { labels, plans, text }
    }

    /// What an earlier process found.
    pub(super) fn plans(&self) -> impl Iterator<Item = (PeerId, Plan)> {
        self.plans.iter().map(|(peer, plan)| (*peer, plan.clone()))
    }

    /// A peer was found elsewhere.
    pub(super) fn put(&mut self, peer: PeerId, plan: Plan) {
        self.plans.insert(peer, plan);
        self.text.send_replace(self.to_text());
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (peer, plan) in &self.plans {
            let Some(label) = self.labels.get(peer.0) else { continue };
            for step in plan.steps() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label} {step}");
            }
        }
        text
    }
}

fn label(peer: &Peer) -> String {
    let transport = peer.place.transport.map_or("", |transport| transport.word());
    format!("{} {};{transport}", peer.name, peer.place.host_port())
}

/// What is no line of this form, or of no peer at a name, is left out.
fn read(text: &str, peers: &[Peer], labels: &[String]) -> BTreeMap<PeerId, Plan> {
    let mut plans = BTreeMap::new();
    for (index, label) in labels.iter().enumerate() {
        let named = peers.get(index).is_some_and(|peer| peer.place.target().is_none());
        let lines = text.lines().filter_map(|line| line.strip_prefix(label.as_str())?.strip_prefix(' '));
        let plan = Plan::new(lines.filter_map(|line| line.parse::<Step>().ok()).collect());
        if named && !plan.is_empty() {
            plans.insert(PeerId(index), plan);
        }
    }
    plans
}

async fn keep(path: PathBuf, mut changes: watch::Receiver<String>) {
    while changes.changed().await.is_ok() {
        let (path, text) = (path.clone(), changes.borrow_and_update().clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "where the peers are cannot be kept for the next start");
        }
    }
}

/// As a whole or not at all; losing it in a power cut is no harm.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use consent::Side;
    use sip_gateway::Transport;
    use sip_gateway::locate::{Host, Place};

    use super::*;

    fn peer(name: &str, host: Host, transport: Option<Transport>) -> Peer {
        Peer {
            name: name.to_owned(),
            side: Side::Public,
            place: Place { host, port: None, transport },
            allow: vec![],
            ping_s: None,
            parties_signalled: false,
            preference_trusted: false,
            may_refer: false,
            trusts_identity: false,
            redirects: sip_gateway::Redirects::Refuse,
            certificate: None,
            account: None,
            allowance: sip_gateway::Allowance::default(),
        }
    }

    fn named(name: &str, host: &str) -> Peer {
        peer(name, Host::Name(host.to_owned()), None)
    }

    fn step(text: &str) -> Step {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_found_is_there_at_the_next_start() {
        let folder = tempfile::TempDir::new().unwrap();
        let peers = [
            peer("pbx", Host::Address([10, 0, 0, 1].into()), None),
            named("a", "a.example"),
            named("b", "b.example"),
        ];
        let plan = Plan::new(vec![
            step("0 3 udp:192.0.2.1:5060 tcp:[2001:db8::1]:5061"),
            step("1 0 udp:192.0.2.2:5060"),
        ]);
        let mut found = Found::open(folder.path(), &peers);
        assert_eq!(found.plans().count(), 0);
        found.put(PeerId(1), Plan::new(vec![step("0 0 udp:192.0.2.9:5060")]));
        found.put(PeerId(1), plan.clone());
        let path = folder.path().join("found-peers");
        while fs::read_to_string(&path).ok() != Some(found.to_text()) {
            tokio::task::yield_now().await;
        }
        let again = Found::open(folder.path(), &peers);
        assert_eq!(again.plans().collect::<Vec<_>>(), [(PeerId(1), plan)]);
    }

    #[test]
    fn a_line_of_another_place_or_without_sense_is_left_out() {
        let peers = [
            peer("pbx", Host::Address([10, 0, 0, 1].into()), None),
            named("a", "a.example"),
            peer("t", Host::Name("t.example".to_owned()), Some(Transport::Tcp)),
        ];
        let labels: Vec<String> = peers.iter().map(label).collect();
        let text = "pbx 10.0.0.1; 0 0 udp:192.0.2.1:5060\na old.example; 0 0 udp:192.0.2.1:5060\n\
                    aa a.example; 0 0 udp:192.0.2.1:5060\na a.example;tcp 0 0 tcp:192.0.2.1:5060\n\
                    a a.example; nonsense\n\u{0}\n\nt t.example;tcp 0 0 tcp:192.0.2.7:5060\n";
        let plans = read(text, &peers, &labels);
        assert_eq!(plans.keys().copied().collect::<Vec<_>>(), [PeerId(2)]);
    }
}
