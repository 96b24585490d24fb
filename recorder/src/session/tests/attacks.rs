//! Attacks on the media ports, by name.

use proptest::prelude::*;

use super::*;

const ATTACKER: &str = "10.66.66.66:6666";

fn sent_to(bench: &Bench, address: &str) -> usize {
    let address: SocketAddr = address.parse().unwrap();
    bench.seen.sent.iter().filter(|(_, to, _)| *to == address).count()
}

#[test]
fn rtpbleed_with_the_source_known_gives_the_attacker_nothing() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 5);
    bench.speech(Leg::B, 2, 0, 5);
    for n in 0..500 {
        bench.rtp(Leg::A, ATTACKER, &Rtp::speech(1, 100 + n));
        bench.rtp(Leg::B, ATTACKER, &Rtp::speech(9, n));
        bench.speech(Leg::A, 1, 5 + n, 1);
        bench.rtp(Leg::B, B, &Rtp::speech(2, 5 + n));
    }
    assert_eq!(sent_to(&bench, ATTACKER), 0);
    assert_eq!((sent_to(&bench, A), sent_to(&bench, B)), (505, 505));
}

#[test]
fn rtpbleed_while_learning_ends_with_the_first_true_packet() {
    let mut bench = Bench::answered();
    for n in 0..200 {
        bench.rtp(Leg::A, ATTACKER, &Rtp::speech(9, n * 7));
        bench.speech(Leg::B, 2, n, 1);
    }
    assert_eq!(sent_to(&bench, ATTACKER), 0, "a spray is not a stream");
    assert_eq!(sent_to(&bench, A), 200, "the described address is spoken to before it speaks");
    bench.rtp(Leg::A, A, &Rtp::speech(1, 0));
    for n in 0..20 {
        bench.rtp(Leg::A, ATTACKER, &Rtp::speech(9, n));
        bench.speech(Leg::B, 2, 200 + n, 1);
    }
    assert!(sent_to(&bench, ATTACKER) < 5);
}

#[test]
fn rtpbleed_by_a_perfect_stream_loses_the_call_to_the_true_source() {
    let mut bench = Bench::answered();
    for n in 0..6 {
        bench.rtp(Leg::A, ATTACKER, &Rtp::speech(9, n));
        bench.speech(Leg::B, 2, n, 1);
    }
    let bled = sent_to(&bench, ATTACKER);
    assert!(bled < 5, "{bled}");
    bench.rtp(Leg::A, A, &Rtp::speech(1, 0));
    bench.speech(Leg::B, 2, 6, 50);
    bench.rtp(Leg::A, ATTACKER, &Rtp::speech(9, 7));
    assert_eq!(sent_to(&bench, ATTACKER), bled);
}

#[test]
fn injection_is_neither_relayed_nor_tapped_and_is_counted() {
    let mut bench = Bench::answered();
    for n in 0..100 {
        bench.rtp(Leg::A, ATTACKER, &Rtp { payload: vec![0xEE; 160], ..Rtp::speech(1, n) });
        bench.rtp(Leg::A, ATTACKER, &Rtp::event(1, n, 0, 1, true, 800));
        bench.speech(Leg::A, 1, n, 1);
    }
    let evil = |payload: &[u8]| payload.contains(&0xEE);
    assert!(bench.heard_by(Leg::B).iter().all(|packet| !evil(&packet.payload)));
    assert_unbroken(&bench.heard_by(Leg::B));
    assert!(bench.seen.frames.iter().all(|frame| match &frame.content {
        Content::Rtp { payload, .. } => !evil(payload.as_slice()),
        _ => false,
    }));
    assert_eq!((bench.digits().as_str(), bench.doubts()), ("", 0));
    assert_eq!(bench.end()[0].refused, 200);
}

#[test]
fn rtcp_from_elsewhere_is_refused_and_a_bye_ends_nothing() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 5);
    let bye = [0x81, 203, 0, 1, 0, 0, 0, 1];
    bench.packet(Leg::A, Port::Rtcp, ATTACKER, &bye);
    bench.packet(Leg::A, Port::Rtcp, "10.0.0.1:4001", &bye);
    assert!(bench.seen.sent.iter().all(|(path, ..)| path.port == Port::Rtp));
    bench.speech(Leg::A, 1, 5, 5);
    assert_eq!(bench.heard_by(Leg::B).len(), 10);
    assert_eq!(bench.end()[0].refused, 1);
}

#[test]
fn a_source_that_changes_with_every_packet_raises_every_time_but_does_not_flood_the_hub() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 200);
    for n in 0..1_000u16 {
        bench.rtp(Leg::A, A, &Rtp::speech(1_000 + u32::from(n), n));
        bench.wait(1);
    }
    bench.wait(1_000);
    assert_eq!(bench.epoch.current(), Epoch(1_000));
    assert!((2..=4).contains(&bench.doubts()), "{}", bench.doubts());
    let last = bench.seen.events.last();
    assert!(matches!(last, Some(Event::UnannouncedSource { epoch: Epoch(1_000), .. })), "{last:?}");
}

proptest! {
    #[test]
    fn no_datagram_on_any_port_does_harm(
        datagrams in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80)),
            0..60,
        ),
    ) {
        let mut bench = Bench::answered();
        for (leg, port, rtcp, mut bytes) in datagrams {
            let (leg, from) = if leg { (Leg::A, A) } else { (Leg::B, B) };
            let port = if port { Port::Rtp } else { Port::Rtcp };
            // Most random octets are not even version 2.
            if let [first, second, third, fourth, ..] = bytes.as_mut_slice() {
                *first = *first & 0x3f | 0x80;
                if rtcp {
                    *second = 200 + *second % 8;
                    *third = 0;
                    *fourth %= 20;
                }
            }
            bench.packet(leg, port, from, &bytes);
            bench.packet(leg, port, ATTACKER, &bytes);
            bench.wait(7);
        }
        prop_assert_eq!(sent_to(&bench, ATTACKER), 0);
        bench.speech(Leg::A, 77, 0, 10);
        prop_assert!(bench.heard_by(Leg::B).len() >= 10);
    }
}
