//! The plane on real sockets of the loopback interface. Nothing sleeps: every step waits for what it causes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use consent::{CallId, Epoch, EpochCounter, Leg, Notice, Permit, Reason, RecordingId};
use zeroize::Zeroizing;

use super::*;
use crate::fixture::dispatch_permit;
use crate::{LegStatistics, NewRecording, RecordingKey, RemoteMedia, Sealed, SourceChange, StreamFormat};

const CALL: CallId = CallId(0x0192_aaaa_bbbb_7ccc_8ddd_0000_0000_0001);
/// Long enough for a machine with much else to do; never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running plane with one call between two endpoints.
struct Bench {
    plane: Plane,
    events: mpsc::Receiver<Event>,
    ours: [SocketAddr; 2],
    ends: [UdpSocket; 2],
    sequence: u16,
}

fn plane(spool: &Path, ports: RangeInclusive<u16>) -> (Plane, mpsc::Receiver<Event>) {
    let config = PlaneConfig {
        origin: Instant::now(),
        address: Ipv4Addr::LOCALHOST.into(),
        ports,
        media_threads: 2,
        spool: spool.to_owned(),
        second_spool: None,
        prompts: PromptSet::load(None, &["en".to_owned()]).unwrap(),
        preamble_budget_bytes: 8_000_000,
        preamble_ms: 60_000,
        lookback_ms: 1_000,
    };
    Plane::start(config).unwrap()
}

/// The next event that `wanted` takes; others are passed over.
fn wait_for<T>(events: &mut mpsc::Receiver<Event>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let search = async {
        loop {
            let event = events.recv().await.expect("the plane ended");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, search).await }).expect("no such event came")
}

fn bind(plane: &Plane, call: CallId, emergency: bool) {
    let (epoch, withdraw) = (EpochCounter::default(), "*80".to_owned());
    plane.send(Command::Bind { call, epoch, streams: 1, emergency, withdraw });
}

fn media(rtp: SocketAddr) -> RemoteMedia {
    let pcmu = StreamFormat { payload_type: 0, encoding: "PCMU".to_owned(), clock_rate: 8_000 };
    let rtcp = SocketAddr::new(rtp.ip(), rtp.port() ^ 1);
    RemoteMedia { rtp, rtcp, audio: true, sends: true, receives: true, formats: vec![pcmu], ptime_ms: 20 }
}

impl Bench {
    fn start(spool: &Path, ports: RangeInclusive<u16>) -> Self {
        let (plane, mut events) = plane(spool, ports);
        bind(&plane, CALL, false);
        let ours = wait_for(&mut events, |event| match event {
            Event::Bound { addresses, .. } => Some(addresses[0]),
            other => panic!("{other:?}"),
        });
        let end = |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let ends = Leg::BOTH.map(end);
        for leg in Leg::BOTH {
            let rtp = ends[leg.index()].local_addr().unwrap();
            let (signalled_from, streams) = (rtp.ip(), vec![Some(media(rtp))]);
            let change = SourceChange::Announced;
            plane.send(Command::Describe { call: CALL, leg, signalled_from, streams, change });
        }
        plane.send(Command::Answered { call: CALL });
        let mut bench = Self { plane, events, ours, ends, sequence: 0 };
        bench.settle();
        bench
    }

    /// Speaks until the other leg hears: commands and datagrams race each other to the media thread.
    fn settle(&mut self) {
        for end in &self.ends {
            end.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        }
        for leg in Leg::BOTH {
            let begun = Instant::now();
            while self.try_cross(leg).is_none() {
                assert!(begun.elapsed() < PATIENCE, "nothing is relayed from leg {leg:?}");
            }
        }
        let mut late = [0; 2_048];
        for end in &self.ends {
            while end.recv(&mut late).is_ok() {}
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
    }

    /// One packet of speech from `leg`, as the other leg gets it.
    fn try_cross(&mut self, leg: Leg) -> Option<Vec<u8>> {
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend((leg.index() as u32 + 77).to_be_bytes());
        packet.extend([self.sequence as u8; 160]);
        self.sequence += 1;
        self.ends[leg.index()].send_to(&packet, self.ours[leg.index()]).unwrap();
        let mut buffer = [0; 2_048];
        let (length, from) = self.ends[leg.other().index()].recv_from(&mut buffer).ok()?;
        assert_eq!(from, self.ours[leg.other().index()]);
        Some(buffer[..length].to_vec())
    }

    fn cross(&mut self, leg: Leg) -> Vec<u8> {
        self.try_cross(leg).expect("the packet did not cross")
    }

    fn open_tap(&self, permit: Permit, id: RecordingId) {
        let key = RecordingKey { secret: Zeroizing::new([7; 32]), wrapped: vec![1, 2, 3] };
        let channels = ["caller".to_owned(), "callee".to_owned()];
        let target = Ok(NewRecording { id, key, channels, look_back: false });
        self.plane.send(Command::OpenTap { permit, target });
    }

    fn sealed(&mut self) -> Sealed {
        wait_for(&mut self.events, |event| match event {
            Event::RecordingSealed(sealed) => Some(*sealed),
            Event::RecordingFailed { .. } => panic!("{event:?}"),
            _ => None,
        })
    }

    fn end(&mut self) -> [LegStatistics; 2] {
        self.plane.send(Command::End { call: CALL });
        wait_for(&mut self.events, |event| match event {
            Event::Statistics { legs, .. } => Some(legs),
            _ => None,
        })
    }

    fn stop(self) {
        drop(self.events);
        Builder::new_current_thread().build().unwrap().block_on(self.plane.stop());
    }
}

fn spooled(spool: &Path) -> usize {
    std::fs::read_dir(spool).unwrap().count()
}

#[test]
fn speech_crosses_both_ways_and_is_counted() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_000..=42_099);
    for _ in 0..50 {
        let sequence = bench.sequence;
        for (leg, expected) in [(Leg::A, sequence), (Leg::B, sequence + 1)] {
            let heard = bench.cross(leg);
            assert_eq!(heard[12..], [expected as u8; 160]);
        }
    }
    assert_eq!(bench.plane.metrics().calls, 1);
    let legs = bench.end();
    assert!(legs.iter().all(|leg| leg.packets >= 50 && leg.refused == 0 && leg.mos.is_some()), "{legs:?}");
    assert_eq!(spooled(spool.path()), 0, "nothing is stored without a permit");
    bench.stop();
}

#[test]
fn a_datagram_too_long_to_be_media_goes_no_further_and_is_counted() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_800..=42_899);
    let mut long = vec![0; 2_048];
    long[0] = 0x80;
    bench.ends[0].send_to(&long, bench.ours[0]).unwrap();
    // One port's datagrams are taken in their order: the next that crosses came after it.
    let spoken = bench.sequence as u8;
    assert_eq!(bench.cross(Leg::A)[12..], [spoken; 160]);
    assert_eq!(bench.plane.metrics().oversized_packets, 1);
    assert!(bench.end().iter().all(|leg| leg.refused == 0));
    bench.stop();
}

#[test]
fn rtcp_crosses_on_the_odd_ports() {
    let spool = tempfile::tempdir().unwrap();
    let bench = Bench::start(spool.path(), 42_700..=42_799);
    let odd = bench.ours.map(|rtp| SocketAddr::new(rtp.ip(), rtp.port() + 1));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 77];
    bench.ends[1].set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    let mut packet = [0; 2_048];
    let (length, from) = loop {
        assert!(begun.elapsed() < PATIENCE, "no report crossed");
        // B's first report shows from where it sends RTCP; A's is for B.
        bench.ends[1].send_to(&report, odd[1]).unwrap();
        bench.ends[0].send_to(&report, odd[0]).unwrap();
        if let Ok(received) = bench.ends[1].recv_from(&mut packet) {
            break received;
        }
    };
    assert_eq!((from, packet[1]), (odd[1], 201));
    assert!(length > report.len(), "ours names itself");
    bench.stop();
}

#[test]
fn a_dispatch_call_is_recorded_and_sealed_at_its_end() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_100..=42_199);
    bench.open_tap(dispatch_permit(CALL), RecordingId(5));
    for _ in 0..100 {
        bench.cross(Leg::A);
        bench.cross(Leg::B);
    }
    bench.end();
    let sealed = bench.sealed();
    assert_eq!((sealed.recording, sealed.call, sealed.recovered), (RecordingId(5), CALL, false));
    assert!(sealed.duration_s > 0.0 && sealed.file.exists());
    bench.stop();
}

#[test]
fn stopping_the_plane_seals_what_is_open() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_200..=42_299);
    bench.open_tap(dispatch_permit(CALL), RecordingId(6));
    while spooled(spool.path()) == 0 {
        bench.cross(Leg::A);
    }
    bench.stop();
    assert!(spool.path().join(format!("{}.sealed", RecordingId(6))).exists());
}

#[test]
fn a_spool_that_cannot_be_written_costs_the_recording_and_not_the_call() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_300..=42_399);
    std::fs::remove_dir(spool.path()).unwrap();
    bench.open_tap(dispatch_permit(CALL), RecordingId(8));
    let mut failed = None;
    let begun = Instant::now();
    while failed.is_none() && begun.elapsed() < PATIENCE {
        bench.cross(Leg::A);
        while let Ok(event) = bench.events.try_recv() {
            if let Event::RecordingFailed { call, recording, .. } = event {
                failed = Some((call, recording));
            }
        }
    }
    assert_eq!(failed, Some((CALL, Some(RecordingId(8)))));
    bench.cross(Leg::B);
    bench.stop();
}

#[test]
fn a_preamble_is_kept_in_locked_memory_and_wiped() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_400..=42_499);
    bench.plane.send(Command::StartPreamble { call: CALL, epoch: Epoch(0) });
    wait_for(&mut bench.events, |event| matches!(event, Event::PreambleStarted { .. }).then_some(()));
    assert!(bench.plane.metrics().locked_bytes >= 60 * PREAMBLE_BYTES_A_SECOND);
    bench.plane.send(Command::Play { call: CALL, leg: Leg::A, notice: Notice::Question });
    wait_for(&mut bench.events, |event| matches!(event, Event::Playing { leg: Leg::A, .. }).then_some(()));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(5) {
        bench.cross(Leg::A);
    }
    bench.plane.send(Command::WipePreamble { call: CALL, reason: Reason::Declined });
    let held_ms = wait_for(&mut bench.events, |event| match event {
        Event::PreambleWiped { held_ms, reason: Reason::Declined, .. } => Some(held_ms),
        _ => None,
    });
    assert!(held_ms > 0);
    assert_eq!((bench.plane.metrics().locked_bytes, spooled(spool.path())), (0, 0));
    bench.stop();
}

#[test]
fn a_notice_is_heard_by_its_leg_at_its_pace() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(spool.path(), 42_500..=42_599);
    let begun = Instant::now();
    bench.plane.send(Command::Play { call: CALL, leg: Leg::B, notice: Notice::Stopped });
    let mut packet = [0; 2_048];
    for _ in 0..26 {
        assert_eq!(bench.ends[1].recv(&mut packet).unwrap(), 172);
    }
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    bench.plane.send(Command::StopPlaying { call: CALL, leg: Leg::B });
    wait_for(&mut bench.events, |event| {
        matches!(event, Event::Played { leg: Leg::B, notice: Notice::Stopped, complete: false, .. })
            .then_some(())
    });
    bench.stop();
}

#[test]
fn without_a_free_port_the_call_is_told_and_an_emergency_takes_one_that_rests() {
    let spool = tempfile::tempdir().unwrap();
    let (plane, mut events) = plane(spool.path(), 42_600..=42_603);
    let outcome = |events: &mut mpsc::Receiver<Event>| {
        wait_for(events, |event| match event {
            Event::Bound { call, addresses } => Some((call.0, addresses.len())),
            Event::BindFailed { call } => Some((call.0, 0)),
            _ => None,
        })
    };
    bind(&plane, CallId(2), false);
    assert_eq!(outcome(&mut events), (2, 1));
    bind(&plane, CallId(4), false);
    assert_eq!(outcome(&mut events), (4, 0));
    plane.send(Command::End { call: CallId(2) });
    let begun = Instant::now();
    while plane.metrics().free_port_pairs < 2 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    bind(&plane, CallId(6), false);
    assert_eq!(outcome(&mut events), (6, 0), "they rest");
    bind(&plane, CallId(8), true);
    assert_eq!(outcome(&mut events), (8, 1));
    drop(events);
    Builder::new_current_thread().build().unwrap().block_on(plane.stop());
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let spool = tempfile::tempdir().unwrap();
    let config = PlaneConfig {
        origin: Instant::now(),
        address: Ipv4Addr::LOCALHOST.into(),
        ports: 42_001..=42_003,
        media_threads: 1,
        spool: spool.path().to_owned(),
        second_spool: None,
        prompts: PromptSet::load(None, &[]).unwrap(),
        preamble_budget_bytes: 0,
        preamble_ms: 60_000,
        lookback_ms: 0,
    };
    assert!(matches!(Plane::start(config), Err(PlaneError::TooFewPorts { first: 42_001, last: 42_003 })));
}
