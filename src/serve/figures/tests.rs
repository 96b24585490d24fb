#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;

use super::*;

/// A reading in which every figure is another one.
fn distinct() -> Reading {
    Reading {
        journal: JournalHealth {
            queued: 1,
            refused: 2,
            unguarded: 3,
            written: 104,
            synced: 100,
            write_failures: 5,
            sync_failures: 6,
            failing: true,
            torn_bytes: 7,
            lost: 8,
        },
        delivery: DeliveryHealth {
            reachable: true,
            delivered: 100,
            failures: 9,
            unplaced: 10,
            lost: 11,
            behind_since: None,
        },
        signalling: SignallingHealth {
            draining: false,
            calls: 12,
            recordings: 13,
            dispatch_failures: 14,
            foreign_caller_ids: 56,
            sip: sip(),
            sockets: sockets(),
            media: PlaneMetrics {
                calls: 47,
                free_port_pairs: 48,
                locked_bytes: 49,
                unsent_packets: 50,
                oversized_packets: 51,
                overrun_frames: 52,
                failed_calls: 53,
                shed_events: 54,
            },
        },
        unstored: 55,
    }
}

fn sip() -> sip_gateway::Counters {
    sip_gateway::Counters {
        requests_in: 15,
        responses_in: 16,
        messages_out: 17,
        dropped_unknown_source: 18,
        dropped_malformed: 19,
        refused_malformed: 20,
        dropped_stray_response: 21,
        dropped_stray_ack: 22,
        shed_transactions: 23,
        shed_calls: 24,
        closed_streams: 25,
        absorbed_requests: 26,
        absorbed_responses: 27,
        challenged: 56,
        refused_credentials: 57,
        answered_challenges: 58,
        calls_offered: 28,
        emergency_calls: 78,
        calls_answered: 29,
        transactions: 30,
        dialogs: 31,
        timers: 32,
        calls_lingering: 33,
    }
}

fn sockets() -> ShellCounters {
    ShellCounters {
        datagrams_in: 34,
        datagrams_out: 35,
        datagrams_lost: 36,
        streams_accepted: 37,
        streams_refused: 38,
        streams_connected: 39,
        connects_failed: 40,
        handshakes_failed: 77,
        streams_overflowed: 41,
        streams_idle: 42,
        stream_messages_out: 43,
        stream_messages_lost: 44,
        listener_errors: 45,
        listener_restarts: 46,
    }
}

/// What a scrape shows of [`distinct`]. These names are in other people's alarms: they do not change.
const SHOWN: &[(&str, u64)] = &[
    ("calls_active", 12),
    ("database_failures_total", 9),
    ("degraded{part=\"audio-store\"}", 1),
    ("degraded{part=\"database\"}", 0),
    ("degraded{part=\"journal\"}", 1),
    ("degraded{part=\"media-ports\"}", 0),
    ("dispatch_recording_failures_total", 14),
    ("foreign_caller_ids_total", 56),
    ("journal_failures_total{step=\"sync\"}", 6),
    ("journal_failures_total{step=\"write\"}", 5),
    ("journal_missing", 8),
    ("journal_queued", 1),
    ("journal_refused_total", 2),
    ("journal_torn_bytes", 7),
    ("journal_undelivered", 4),
    ("journal_unguarded_total", 3),
    ("media_calls", 47),
    ("media_failed_calls_total", 53),
    ("media_free_port_pairs", 48),
    ("media_locked_memory_bytes", 49),
    ("media_overrun_frames_total", 52),
    ("media_oversized_packets_total", 51),
    ("media_shed_events_total", 54),
    ("media_unsent_packets_total", 50),
    ("ready", 1),
    ("recordings_active", 13),
    ("recordings_unstored", 55),
    ("records_lost_total", 11),
    ("records_unplaced_total", 10),
    ("sip_calls_answered_total", 29),
    ("sip_calls_lingering", 33),
    ("sip_calls_offered_total", 28),
    ("sip_challenged_total", 56),
    ("sip_challenges_answered_total", 58),
    ("sip_connects_failed_total", 40),
    ("sip_credentials_refused_total", 57),
    ("sip_datagrams_in_total", 34),
    ("sip_datagrams_lost_total", 36),
    ("sip_datagrams_out_total", 35),
    ("sip_dialogs", 31),
    ("sip_dropped_total{reason=\"malformed\"}", 19),
    ("sip_dropped_total{reason=\"stray-ack\"}", 22),
    ("sip_dropped_total{reason=\"stray-response\"}", 21),
    ("sip_dropped_total{reason=\"unknown-source\"}", 18),
    ("sip_emergency_calls_total", 78),
    ("sip_listener_errors_total", 45),
    ("sip_listener_restarts_total", 46),
    ("sip_malformed_refused_total", 20),
    ("sip_messages_in_total{kind=\"request\"}", 15),
    ("sip_messages_in_total{kind=\"response\"}", 16),
    ("sip_messages_out_total", 17),
    ("sip_repeats_absorbed_total{kind=\"request\"}", 26),
    ("sip_repeats_absorbed_total{kind=\"response\"}", 27),
    ("sip_shed_total{room=\"calls\"}", 24),
    ("sip_shed_total{room=\"requests\"}", 23),
    ("sip_stream_messages_lost_total", 44),
    ("sip_stream_messages_out_total", 43),
    ("sip_streams_closed_total", 25),
    ("sip_streams_given_up_total{reason=\"idle\"}", 42),
    ("sip_streams_given_up_total{reason=\"unread\"}", 41),
    ("sip_streams_opened_total{by=\"gateway\"}", 39),
    ("sip_streams_opened_total{by=\"peer\"}", 37),
    ("sip_streams_refused_total", 38),
    ("sip_timers", 32),
    ("sip_tls_handshakes_failed_total", 77),
    ("sip_transactions", 30),
];

#[derive(Debug)]
struct Shown(Reading);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(&mut Figures(encoder))
    }
}

fn text_of(reading: Reading) -> String {
    let mut registry = Registry::with_prefix("earmark");
    registry.register_collector(Box::new(Shown(reading)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn each_figure_has_its_own_name() {
    let text = text_of(distinct());
    let shown: BTreeMap<&str, u64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.strip_prefix("earmark_").unwrap(), value.parse().unwrap())
        })
        .collect();
    assert_eq!(shown, SHOWN.iter().copied().collect());
}

#[test]
fn each_figure_says_what_it_is_and_its_labels_are_words() {
    let text = text_of(distinct());
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        let helped = |line: &&str| line.starts_with(&format!("# HELP {name} ")) && line.ends_with('.');
        assert_eq!(text.lines().filter(helped).count(), 1, "{name}");
    }
    for word in text.split('"').skip(1).step_by(2) {
        assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{word}");
    }
}

#[test]
fn each_degradation_has_its_cause() {
    let sound = Reading {
        delivery: DeliveryHealth { reachable: true, ..DeliveryHealth::default() },
        ..Reading::default()
    };
    let present = |change: &dyn Fn(&mut Reading)| -> Vec<&str> {
        let mut reading = sound.clone();
        change(&mut reading);
        assert!(reading.is_ready());
        reading.degradations().into_iter().filter(|part| part.present).map(|part| part.what).collect()
    };
    assert!(present(&|_| {}).is_empty());
    assert_eq!(present(&|reading| reading.delivery.reachable = false), ["database"]);
    assert_eq!(present(&|reading| reading.journal.failing = true), ["journal"]);
    assert_eq!(present(&|reading| reading.unstored = 1), ["audio-store"]);
    assert_eq!(present(&|reading| reading.signalling.media.calls = 1), ["media-ports"]);
}
