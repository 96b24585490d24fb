//! `/metrics` (OpenMetrics), `/healthz` and `/readyz`, for machines. No number, name or digit is in them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use consent::{Direction, GateState, Reason};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sip_gateway::{PeerId, Refusal};
use storage::{Entry, Outcome, Stamped};
use tokio::net::TcpListener;

use super::figures::{Reading, Sources};

/// Everything that the outside may ask of the running service's state: what is counted here where it happens,
/// and where the rest is.
#[derive(Debug)]
pub(super) struct Ops {
    registry: Registry,
    sources: Sources,
    calls: Family<CallLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    peer_registered: Family<PeerLabels, Gauge>,
    recording_failures: Counter,
    recordings_stored: Counter,
    pub(super) store_failures: Counter,
    peer_up: Family<PeerLabels, Gauge>,
    refused: Family<RefusalLabels, Counter>,
    /// By [`PeerId`].
    peers: Vec<PeerLabels>,
    pub(super) media_refused: Counter,
    pub(super) ladders_shed: Counter,
    certificate_expiry: Family<NoLabels, Gauge>,
}

/// A figure that is there or not, and has no parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoLabels {}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    direction: Word,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    gate: Word,
    reason: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    peer: String,
    reason: &'static str,
}

/// A word of the contract, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Word(String);

impl Word {
    fn of(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(serde_json::Value::String(word)) => Self(word),
            _ => Self("unknown".to_owned()),
        }
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

impl Ops {
    /// With the names of the peers.
    pub(super) fn new(sources: Sources, peers: impl IntoIterator<Item = String>) -> Self {
        let mut ops = Self {
            registry: Registry::with_prefix("earmark"),
            sources,
            calls: Family::default(),
            decisions: Family::default(),
            peer_registered: Family::default(),
            recording_failures: Counter::default(),
            recordings_stored: Counter::default(),
            store_failures: Counter::default(),
            peer_up: Family::default(),
            refused: Family::default(),
            peers: peers.into_iter().map(|peer| PeerLabels { peer }).collect(),
            media_refused: Counter::default(),
            ladders_shed: Counter::default(),
            certificate_expiry: Family::default(),
        };
        let registry = &mut ops.registry;
        registry.register("calls", "Calls ended, by direction and outcome", ops.calls.clone());
        registry.register("consent_decisions", "Decisions about the gate", ops.decisions.clone());
        registry.register(
            "peer_registered",
            "1 while the gateway is registered with this peer",
            ops.peer_registered.clone(),
        );
        registry.register("recording_failures", "Recordings that failed", ops.recording_failures.clone());
        registry.register("recordings_stored", "Recordings sealed and stored", ops.recordings_stored.clone());
        registry.register(
            "store_failures",
            "Attempts to store a recording that failed",
            ops.store_failures.clone(),
        );
        registry.register(
            "peer_up",
            "Whether a peer has been found and has shown nothing bad since it last answered",
            ops.peer_up.clone(),
        );
        registry.register(
            "sip_refused",
            "What the gateway refused at its limits, by the peer that sent it",
            ops.refused.clone(),
        );
        registry.register(
            "ladders_shed",
            "Parts of calls' ladders let go because journal or database were behind",
            ops.ladders_shed.clone(),
        );
        registry.register("rtp_refused", "Media packets refused in ended calls", ops.media_refused.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate of the tls: listeners, or one of its chain, expires, in Unix time",
            ops.certificate_expiry.clone(),
        );
        registry.register_collector(Box::new(ops.sources.clone()));
        ops
    }

    /// Another certificate is in force. Without one there is no figure, so that no alarm goes off.
    pub(super) fn certificate_expires(&self, expires_s: u64) {
        self.certificate_expiry.get_or_create(&NoLabels {}).set(i64::try_from(expires_s).unwrap_or(i64::MAX));
    }

    /// Whether entries wait for a database that is away.
    pub(super) fn database_is_behind(&self) -> bool {
        self.sources.delivery.borrow().behind_since.is_some()
    }

    /// How many recordings the store has refused so far.
    pub(super) fn unstored(&self, count: usize) {
        self.sources.unstored.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets whether calls can be expected to reach a peer.
    pub(super) fn peer_is_up(&self, peer: PeerId, up: bool) {
        if let Some(labels) = self.peers.get(peer.0) {
            self.peer_up.get_or_create(labels).set(up.into());
        }
    }

    /// Sets how much has been refused to each peer.
    pub(super) fn refused(&self, totals: impl Iterator<Item = (PeerId, Refusal, u64)>) {
        for (peer, why, total) in totals {
            let Some(PeerLabels { peer }) = self.peers.get(peer.0).cloned() else { continue };
            let counter = self.refused.get_or_create(&RefusalLabels { peer, reason: why.word() });
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Sets whether the gateway is registered with a peer.
    pub(super) fn peer_is_registered(&self, peer: PeerId, registered: bool) {
        if let Some(labels) = self.peers.get(peer.0) {
            self.peer_registered.get_or_create(labels).set(registered.into());
        }
    }

    /// Counts what an entry says.
    pub(super) fn count(&self, stamped: &Stamped, direction: Option<Direction>) {
        match &stamped.entry {
            Entry::CallEnded(ended) => self.count_call(direction, ended.outcome),
            Entry::Decided { decision, .. } => self.count_decision(decision.gate, decision.reason),
            Entry::RecordingFailed { .. } => {
                self.recording_failures.inc();
            }
            Entry::RecordingStored(_) => {
                self.recordings_stored.inc();
            }
            _ => {}
        }
    }

    fn count_call(&self, direction: Option<Direction>, outcome: Outcome) {
        let labels = CallLabels { direction: Word::of(direction), outcome: Word::of(outcome) };
        self.calls.get_or_create(&labels).inc();
    }

    fn count_decision(&self, gate: GateState, reason: Reason) {
        self.decisions
            .get_or_create(&DecisionLabels { gate: Word::of(gate), reason: Word::of(reason) })
            .inc();
    }
}

/// What `/readyz` says.
#[derive(Serialize)]
struct Readiness {
    /// Whether new calls are taken.
    ready: bool,
    /// What is away or failing while calls go on.
    degraded: Vec<&'static str>,
    /// Each thing that is not as it should be, in words.
    why: Vec<&'static str>,
    undelivered_entries: u64,
}

impl Readiness {
    fn of(reading: &Reading) -> Self {
        let present: Vec<_> = reading.degradations().into_iter().filter(|part| part.present).collect();
        let stopping = (!reading.is_ready()).then_some("the service is stopping: it takes no new calls");
        Self {
            ready: reading.is_ready(),
            degraded: present.iter().map(|part| part.what).collect(),
            why: stopping.into_iter().chain(present.iter().map(|part| part.sentence)).collect(),
            undelivered_entries: reading.undelivered(),
        }
    }
}

/// Binds and serves; returns the address bound.
pub(super) async fn start(listen: SocketAddr, ops: Arc<Ops>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ops);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops listener ended");
        }
    });
    Ok(address)
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &ops.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let readiness = Readiness::of(&ops.sources.read());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = serde_json::to_string(&readiness).unwrap_or_default();
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use storage::{DeliveryHealth, Journal};
    use tokio::sync::watch;

    use super::super::figures::SignallingHealth;
    use super::*;

    const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

    fn sources(draining: bool) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::start(&folder.path().join("journal")).unwrap());
        let delivery = watch::channel(DeliveryHealth { reachable: true, ..DeliveryHealth::default() }).1;
        let signalling = watch::channel(SignallingHealth { draining, ..SignallingHealth::default() }).1;
        (folder, Sources { journal, delivery, signalling, unstored: Gauge::default() })
    }

    #[test]
    fn what_the_operations_page_names_is_there() {
        let (_folder, sources) = sources(false);
        let ops = Ops::new(sources, ["pbx".to_owned()]);
        ops.peer_is_up(PeerId(0), true);
        ops.count_call(Some(Direction::Inbound), Outcome::Answered);
        ops.count_decision(GateState::Shut, Reason::NeverLine);
        ops.certificate_expires(1);
        ops.peer_is_registered(PeerId(0), true);
        ops.refused([(PeerId(0), Refusal::Rate, 1)].into_iter());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &ops.registry).unwrap();
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        let mut named = 0;
        for (at, _) in OPERATIONS.match_indices("earmark_") {
            let name: String = OPERATIONS[at..].chars().take_while(|&c| is_part(c)).collect();
            let sample = |line: &str| line.split([' ', '{']).next() == Some(name.as_str());
            assert!(text.lines().any(sample), "{name} is not in\n{text}");
            named += 1;
        }
        assert!(named > 10, "{named}");
    }

    #[test]
    fn readiness_says_in_words_what_is_wrong() {
        let (_folder, well) = sources(false);
        let said = serde_json::to_value(Readiness::of(&well.read())).unwrap();
        let all_well =
            serde_json::json!({"ready": true, "degraded": [], "why": [], "undelivered_entries": 0});
        assert_eq!(said, all_well);

        let (_folder, stopping) = sources(true);
        stopping.unstored.set(2);
        let said = serde_json::to_value(Readiness::of(&stopping.read())).unwrap();
        assert_eq!((&said["ready"], &said["degraded"]), (&false.into(), &serde_json::json!(["audio-store"])));
        let why = said["why"].as_array().unwrap();
        assert!(why[0].as_str().unwrap().contains("takes no new calls"), "{said}");
        assert!(why[1].as_str().unwrap().contains("audio store"), "{said}");
        assert_eq!(why.len(), 2);
    }
}
