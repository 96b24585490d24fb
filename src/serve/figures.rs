//! The figures of `/metrics` that others keep, read when somebody asks, each with its name.
//!
//! A label's value is a word of this file: nothing that a peer sent can become one (I4). Each owner's figures are
//! taken apart field by field, so that one which is added there is missed here at once.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Unit;
use recorder::PlaneMetrics;
use sip_gateway::ShellCounters;
use storage::{DeliveryHealth, Journal, JournalHealth};
use tokio::sync::watch;

/// Where the figures are.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) journal: Arc<Journal>,
    pub(super) delivery: watch::Receiver<DeliveryHealth>,
    pub(super) signalling: watch::Receiver<SignallingHealth>,
    /// Recordings that the store has refused and that wait to be tried again.
    pub(super) unstored: Gauge,
}

/// How the signalling task is, and what it owns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SignallingHealth {
    /// Whether new calls are refused because the service stops.
    pub(super) draining: bool,
    /// Calls whose record is open.
    pub(super) calls: usize,
    /// Recordings being made.
    pub(super) recordings: usize,
    pub(super) dispatch_failures: u64,
    pub(super) foreign_caller_ids: u64,
    pub(super) sip: sip_gateway::Counters,
    pub(super) sockets: ShellCounters,
    pub(super) media: PlaneMetrics,
}

/// All of it, as it was at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    journal: JournalHealth,
    delivery: DeliveryHealth,
    signalling: SignallingHealth,
    unstored: i64,
}

/// Something that can fail while calls go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Degradation {
    /// Its word.
    pub(super) what: &'static str,
    /// What it means.
    pub(super) sentence: &'static str,
    /// Whether it is so now.
    pub(super) present: bool,
}

impl Sources {
    pub(super) fn read(&self) -> Reading {
        Reading {
            journal: self.journal.health(),
            delivery: self.delivery.borrow().clone(),
            signalling: *self.signalling.borrow(),
            unstored: self.unstored.get(),
        }
    }
}

impl Reading {
    /// Whether new calls are taken.
    pub(super) const fn is_ready(&self) -> bool {
        !self.signalling.draining
    }

    /// Entries that wait for the database.
    pub(super) const fn undelivered(&self) -> u64 {
        self.journal.written.saturating_sub(self.delivery.delivered)
    }

    pub(super) const fn degradations(&self) -> [Degradation; 4] {
        let media = &self.signalling.media;
        [
            Degradation {
                what: "database",
                sentence: "the database takes no entries: calls go on, and the journal keeps what happens",
                present: !self.delivery.reachable,
            },
            Degradation {
                what: "journal",
                sentence: "the journal's disk takes no entries: calls go on, and entries wait in memory",
                present: self.journal.failing,
            },
            Degradation {
                what: "audio-store",
                sentence: "the audio store has refused recordings: they wait in the spool",
                present: self.unstored > 0,
            },
            Degradation {
                what: "media-ports",
                sentence: "every media port is in use: new calls are neither relayed nor recorded",
                present: media.free_port_pairs == 0 && media.calls > 0,
            },
        ]
    }

    fn encode(&self, out: &mut Figures<'_>) -> fmt::Result {
        out.gauge("ready", "1 while new calls are taken", u64::from(self.is_ready()))?;
        let degraded = self.degradations().map(|part| (part.what, u64::from(part.present)));
        out.gauges("degraded", "1 while this part fails; calls go on", "part", &degraded)?;
        let SignallingHealth {
            draining: _,
            calls,
            recordings,
            dispatch_failures,
            foreign_caller_ids,
            sip,
            sockets,
            media,
        } = self.signalling;
        out.gauge("calls_active", "Calls whose record is open", calls as u64)?;
        out.gauge("recordings_active", "Recordings being made", recordings as u64)?;
        let help =
            "Recordings, or one of their two copies, that failed on dispatch lines; alert on more than 0";
        out.counter("dispatch_recording_failures", help, dispatch_failures)?;
        let help = "Calls to the outside that showed a number which is none of the district's";
        out.counter("foreign_caller_ids", help, foreign_caller_ids)?;
        let help = "Sealed recordings that the store has refused and that wait in the spool";
        out.gauge("recordings_unstored", help, u64::try_from(self.unstored).unwrap_or_default())?;
        out.gauge("journal_undelivered", "Entries that wait for the database", self.undelivered())?;
        journal(out, &self.journal)?;
        delivery(out, &self.delivery)?;
        messages(out, &sip)?;
        tables(out, &sip)?;
        transports(out, &sockets)?;
        media_plane(out, &media)
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.read().encode(&mut Figures(encoder))
    }
}

fn journal(out: &mut Figures<'_>, health: &JournalHealth) -> fmt::Result {
    let JournalHealth {
        queued,
        refused,
        unguarded,
        written: _,
        synced: _,
        write_failures,
        sync_failures,
        failing: _,
        torn_bytes,
        lost,
    } = *health;
    out.gauge("journal_queued", "Entries that wait in memory for the journal's disk", queued as u64)?;
    out.counter("journal_refused", "Entries that a full journal refused; they are lost", refused)?;
    let help =
        "Entries that a slow disk had not synced when their memory was let go; lost if that sync fails";
    out.counter("journal_unguarded", help, unguarded)?;
    let failures = [("write", write_failures), ("sync", sync_failures)];
    out.counters(
        "journal_failures",
        "What the journal's disk refused, tried again since",
        "step",
        &failures,
    )?;
    let help = "Bytes that were half written when the last process ended, cut off at the start";
    out.bytes("journal_torn", help, torn_bytes)?;
    out.gauge("journal_missing", "Entries that could not be read at the start", lost)
}

fn delivery(out: &mut Figures<'_>, health: &DeliveryHealth) -> fmt::Result {
    let DeliveryHealth { reachable: _, delivered: _, failures, unplaced, lost, behind_since: _ } = *health;
    out.counter("database_failures", "Attempts to deliver entries to the database that failed", failures)?;
    let help = "Entries that fit nowhere in the database; they are kept aside in it";
    out.counter("records_unplaced", help, unplaced)?;
    out.counter("records_lost", "Entries that the journal could not give to the database any more", lost)
}

fn messages(out: &mut Figures<'_>, counters: &sip_gateway::Counters) -> fmt::Result {
    let sip_gateway::Counters {
        requests_in,
        responses_in,
        messages_out,
        dropped_unknown_source,
        dropped_malformed,
        refused_malformed,
        dropped_stray_response,
        dropped_stray_ack,
        shed_transactions,
        shed_calls,
        closed_streams,
        absorbed_requests,
        absorbed_responses,
        challenged,
        refused_credentials,
        answered_challenges,
        calls_offered,
        emergency_calls,
        calls_answered,
        // Below.
        transactions: _,
        dialogs: _,
        timers: _,
        calls_lingering: _,
    } = *counters;
    let received = [("request", requests_in), ("response", responses_in)];
    out.counters("sip_messages_in", "Well-formed SIP messages from peers", "kind", &received)?;
    out.counter("sip_messages_out", "SIP messages to peers, repetitions among them", messages_out)?;
    let dropped = [
        ("unknown-source", dropped_unknown_source),
        ("malformed", dropped_malformed),
        ("stray-response", dropped_stray_response),
        ("stray-ack", dropped_stray_ack),
    ];
    out.counters("sip_dropped", "Datagrams, streams and messages that got no answer", "reason", &dropped)?;
    let help = "Messages that could not be read and were answered 4xx or 5xx";
    out.counter("sip_malformed_refused", help, refused_malformed)?;
    let shed = [("requests", shed_transactions), ("calls", shed_calls)];
    out.counters("sip_shed", "Requests refused or dropped for want of room", "room", &shed)?;
    let help =
        "Streams that the gateway closed: too many, no peer's, unreadable, idle within a message, or mute";
    out.counter("sip_streams_closed", help, closed_streams)?;
    let absorbed = [("request", absorbed_requests), ("response", absorbed_responses)];
    out.counters("sip_repeats_absorbed", "Repetitions that went no further", "kind", &absorbed)?;
    out.counter("sip_challenged", "Requests of peers that had to prove themselves first", challenged)?;
    let help = "Of those, the ones that came with wrong credentials";
    out.counter("sip_credentials_refused", help, refused_credentials)?;
    let help = "Challenges of peers that the gateway answered";
    out.counter("sip_challenges_answered", help, answered_challenges)?;
    out.counter("sip_calls_offered", "Initial INVITEs taken", calls_offered)?;
    let help = "Calls to 911, 933 and other emergency services, by transfers and redirections too";
    out.counter("sip_emergency_calls", help, emergency_calls)?;
    out.counter("sip_calls_answered", "Calls answered", calls_answered)
}

fn tables(out: &mut Figures<'_>, counters: &sip_gateway::Counters) -> fmt::Result {
    let sip_gateway::Counters { transactions, dialogs, timers, calls_lingering, .. } = *counters;
    out.gauge("sip_transactions", "SIP transactions alive", transactions as u64)?;
    out.gauge("sip_dialogs", "SIP dialogs alive, early ones among them", dialogs as u64)?;
    out.gauge("sip_timers", "SIP timers armed", timers as u64)?;
    let help = "Calls that have ended and whose transactions run out";
    out.gauge("sip_calls_lingering", help, calls_lingering as u64)
}

fn transports(out: &mut Figures<'_>, counters: &ShellCounters) -> fmt::Result {
    let ShellCounters {
        datagrams_in,
        datagrams_out,
        datagrams_lost,
        streams_accepted,
        streams_refused,
        streams_connected,
        connects_failed,
        handshakes_failed,
        streams_overflowed,
        streams_idle,
        stream_messages_out,
        stream_messages_lost,
        listener_errors,
        listener_restarts,
    } = *counters;
    out.counter("sip_datagrams_in", "Datagrams received on SIP listeners", datagrams_in)?;
    out.counter("sip_datagrams_out", "Datagrams that the system took", datagrams_out)?;
    out.counter("sip_datagrams_lost", "Datagrams that the system did not take", datagrams_lost)?;
    let opened = [("peer", streams_accepted), ("gateway", streams_connected)];
    out.counters("sip_streams_opened", "Streams accepted, and streams asked for", "by", &opened)?;
    out.counter("sip_streams_refused", "Streams closed at once because too many were open", streams_refused)?;
    out.counter("sip_connects_failed", "Streams asked for that failed or took too long", connects_failed)?;
    let help = "Streams from peers that did not come to be secure";
    out.counter("sip_tls_handshakes_failed", help, handshakes_failed)?;
    let given_up = [("unread", streams_overflowed), ("idle", streams_idle)];
    let help = "Streams given up because their peer did not read, or nothing went either way";
    out.counters("sip_streams_given_up", help, "reason", &given_up)?;
    out.counter("sip_stream_messages_out", "Messages queued on streams", stream_messages_out)?;
    let help = "Messages for a stream that had ended or was full";
    out.counter("sip_stream_messages_lost", help, stream_messages_lost)?;
    out.counter("sip_listener_errors", "Errors of receiving and accepting", listener_errors)?;
    let help = "Listeners that a defect ended and that were started again";
    out.counter("sip_listener_restarts", help, listener_restarts)
}

fn media_plane(out: &mut Figures<'_>, metrics: &PlaneMetrics) -> fmt::Result {
    let PlaneMetrics {
        calls,
        free_port_pairs,
        locked_bytes,
        unsent_packets,
        oversized_packets,
        overrun_frames,
        failed_calls,
        shed_events,
    } = *metrics;
    out.gauge("media_calls", "Calls with media ports", calls)?;
    out.gauge("media_free_port_pairs", "Pairs of media ports that no call has", free_port_pairs)?;
    out.bytes("media_locked_memory", "Memory locked for questions and look-back", locked_bytes)?;
    out.counter("media_unsent_packets", "Media packets that the system did not take", unsent_packets)?;
    let help = "Datagrams on media ports that were too long to be media";
    out.counter("media_oversized_packets", help, oversized_packets)?;
    let help = "Frames missing from recordings because their writing was behind";
    out.counter("media_overrun_frames", help, overrun_frames)?;
    out.counter("media_failed_calls", "Calls whose media a defect ended", failed_calls)?;
    let help = "Events of the media plane that were dropped because signalling was behind";
    out.counter("media_shed_events", help, shed_events)
}

/// Writes figures down.
struct Figures<'a>(DescriptorEncoder<'a>);

impl Figures<'_> {
    fn counter(&mut self, name: &str, help: &str, total: u64) -> fmt::Result {
        ConstCounter::new(total).encode(self.describe(name, help, None, MetricType::Counter)?)
    }

    /// One counter for each word.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        totals: &[(&'static str, u64)],
    ) -> fmt::Result {
        let mut family = self.describe(name, help, None, MetricType::Counter)?;
        totals.iter().try_for_each(|&(word, total)| {
            ConstCounter::new(total).encode(family.encode_family(&[(label, word)])?)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, now: u64) -> fmt::Result {
        ConstGauge::new(now).encode(self.describe(name, help, None, MetricType::Gauge)?)
    }

    /// One gauge for each word.
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        now: &[(&'static str, u64)],
    ) -> fmt::Result {
        let mut family = self.describe(name, help, None, MetricType::Gauge)?;
        now.iter()
            .try_for_each(|&(word, now)| ConstGauge::new(now).encode(family.encode_family(&[(label, word)])?))
    }

    /// A gauge of bytes; its name gets `_bytes`.
    fn bytes(&mut self, name: &str, help: &str, now: u64) -> fmt::Result {
        ConstGauge::new(now).encode(self.describe(name, help, Some(&Unit::Bytes), MetricType::Gauge)?)
    }

    fn describe<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        // With the full stop that the registry gives its own.
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }
}

#[cfg(test)]
mod tests;
