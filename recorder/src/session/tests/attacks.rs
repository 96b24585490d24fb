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
    // The worst case: the attacker is behind the NAT from which the leg signals.
    let attacker: SocketAddr = ATTACKER.parse().unwrap();
    bench.describe_from(attacker.ip(), Leg::A, media(A), SourceChange::Announced);
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
    assert_eq!(sent_to(&bench, ATTACKER), 0);
}

#[test]
fn rtpbleed_by_a_perfect_stream_gives_the_attacker_nothing_before_the_source_speaks() {
    for described in [A, "0.0.0.0:4000", "100.64.0.9:4000", "169.254.0.9:4000", "[fd00::9]:4000", INSIDE] {
        let mut bench = Bench::new(false);
        let outside: SocketAddr = OUTSIDE.parse().unwrap();
        bench.describe_from(outside.ip(), Leg::A, media(described), SourceChange::Announced);
        bench.describe(Leg::B, media(B), SourceChange::Announced);
        bench.command(Command::Answered { call: CALL });
        for n in 0..500 {
            bench.rtp(Leg::A, ATTACKER, &Rtp::speech(9, n));
            bench.rtp(Leg::A, STRANGER, &Rtp::speech(8, n));
            bench.packet(Leg::A, Port::Rtcp, STRANGER, &[0x80, 201, 0, 1, 0, 0, 0, 8]);
            bench.speech(Leg::B, 2, n, 1);
        }
        assert_eq!(sent_to(&bench, ATTACKER) + sent_to(&bench, STRANGER), 0, "{described}");
        assert!(bench.heard_by(Leg::B).is_empty() && frames_said_by(&bench, Leg::A).is_empty());
        assert_eq!((bench.doubts(), bench.epoch.current()), (0, Epoch(0)), "{described}");
        for n in 0..4 {
            bench.rtp(Leg::A, OUTSIDE, &Rtp::speech(1, n));
            bench.wait(20);
        }
        assert_eq!(bench.heard_by(Leg::B).len(), 1, "{described}: the leg behind NAT is not kept out");
        assert_eq!(bench.end()[0].refused, 1_503);
    }
}

#[test]
fn rtpbleed_from_behind_the_same_nat_loses_the_call_to_the_described_source() {
    let mut bench = answered_by(INSIDE);
    for n in 0..6 {
        bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, n));
        bench.speech(Leg::A, 1, n, 1);
    }
    let bled = sent_to(&bench, OUTSIDE);
    assert!((1..5).contains(&bled), "{bled}");
    bench.rtp(Leg::B, INSIDE, &Rtp::speech(2, 0));
    bench.speech(Leg::A, 1, 6, 50);
    bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, 7));
    assert_eq!(sent_to(&bench, OUTSIDE), bled);
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

/// A call whose callee is described at a global address and keeps silent.
const CALLEE: &str = "198.51.100.20:5000";
const STRANGER: &str = "203.0.113.66:6666";
/// The callee of another call, behind NAT: what it says of itself, and where it sends and signals from.
const INSIDE: &str = "10.0.0.5:5000";
const OUTSIDE: &str = "203.0.113.5:31000";

fn answered_by(callee: &str) -> Bench {
    let mut bench = ringing_at(callee);
    bench.command(Command::Answered { call: CALL });
    bench
}

fn ringing_at(callee: &str) -> Bench {
    let mut bench = Bench::new(false);
    let signalled_from: SocketAddr = if callee == INSIDE { OUTSIDE } else { callee }.parse().unwrap();
    bench.describe(Leg::A, media(A), SourceChange::Announced);
    bench.describe_from(signalled_from.ip(), Leg::B, media(callee), SourceChange::Announced);
    bench
}

fn ask(bench: &mut Bench) -> u16 {
    bench.command(Command::SwallowDigits { call: CALL, leg: Leg::B, swallow: true });
    bench.command(Command::Play { call: CALL, leg: Leg::B, notice: Notice::Question });
    (bench.session.prompts.prompt(Notice::Question).duration_ms() / 20) as u16 + 5
}

/// Whether the question was asked to its end of somebody who was there to hear it, if it has ended.
fn was_asked(bench: &Bench) -> Option<bool> {
    bench.seen.events.iter().find_map(|event| match event {
        Event::Played { leg: Leg::B, notice: Notice::Question, complete, .. } => Some(*complete),
        _ => None,
    })
}

fn frames_said_by(bench: &Bench, leg: Leg) -> Vec<&Frame> {
    let said = |frame: &&Frame| frame.leg == leg && !matches!(frame.content, Content::Told { .. });
    bench.seen.frames.iter().filter(said).collect()
}

fn press(bench: &mut Bench, from: &str, sequence: u16, event: u8) {
    let began = u32::from(sequence) * 160;
    for (n, end) in [false, true, true].into_iter().enumerate() {
        bench.rtp(Leg::B, from, &Rtp::event(9, sequence + n as u16, began, event, end, 480));
        bench.wait(20);
    }
}

#[test]
fn a_stranger_cannot_consent_for_a_silent_callee() {
    let mut bench = answered_by(CALLEE);
    let packets = ask(&mut bench);
    for n in 0..packets {
        bench.rtp(Leg::B, STRANGER, &Rtp::speech(9, n));
        bench.packet(Leg::B, Port::Rtcp, "203.0.113.66:6667", &[0x80, 201, 0, 1, 0, 0, 0, 9]);
        bench.wait(20);
    }
    press(&mut bench, STRANGER, packets, 1);
    assert_eq!(was_asked(&bench), Some(false));
    assert_eq!((bench.digits().as_str(), bench.epoch.current()), ("", Epoch(0)));
    assert!(frames_said_by(&bench, Leg::B).is_empty());
    assert!(bench.heard_by(Leg::A).is_empty());
    assert_eq!(sent_to(&bench, STRANGER) + sent_to(&bench, "203.0.113.66:6667"), 0);
    let received = &bench.end()[1];
    assert_eq!((received.packets, received.refused), (0, 2 * u64::from(packets) + 3));
}

#[test]
fn a_stranger_neither_speaks_nor_listens_for_a_silent_callee() {
    let mut bench = answered_by(CALLEE);
    for n in 0..500 {
        bench.rtp(Leg::B, STRANGER, &Rtp::speech(9, n));
        bench.speech(Leg::A, 1, n, 1);
    }
    assert!(bench.heard_by(Leg::A).is_empty());
    assert!(frames_said_by(&bench, Leg::B).is_empty());
    assert_eq!((sent_to(&bench, STRANGER), sent_to(&bench, CALLEE)), (0, 500));
    bench.rtp(Leg::B, CALLEE, &Rtp::speech(2, 0));
    assert_eq!((bench.heard_by(Leg::A).len(), bench.doubts()), (1, 0));
    assert_eq!(bench.end()[1].refused, 500);
}

#[test]
fn a_stranger_on_the_same_host_is_no_better() {
    let mut bench = answered_by("127.0.0.11:5000");
    for n in 0..100 {
        bench.rtp(Leg::B, "127.0.0.66:5000", &Rtp::speech(9, n));
        bench.speech(Leg::A, 1, n, 1);
    }
    assert!(bench.heard_by(Leg::A).is_empty());
    assert_eq!(sent_to(&bench, "127.0.0.66:5000"), 0);
}

#[test]
fn a_leg_behind_nat_is_heard_but_cannot_consent_and_can_withdraw() {
    let mut bench = answered_by(INSIDE);
    for n in 0..10 {
        bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, n));
        bench.speech(Leg::A, 1, n, 1);
    }
    assert_eq!(bench.heard_by(Leg::A).len(), 7, "three packets on probation");
    assert!(sent_to(&bench, OUTSIDE) > 0);
    assert_eq!((bench.doubts(), bench.epoch.current()), (1, Epoch(1)));
    let packets = ask(&mut bench);
    for n in 0..packets {
        bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, 10 + n));
        bench.packet(Leg::B, Port::Rtcp, "203.0.113.5:31001", &[0x80, 201, 0, 1, 0, 0, 0, 9]);
        bench.wait(20);
    }
    press(&mut bench, OUTSIDE, 10 + packets, 1);
    assert_eq!((was_asked(&bench), bench.digits().as_str()), (Some(false), ""));
    let is_answer = |frame: &&Frame| matches!(frame.content, Content::Digit { answer: Some(_), .. });
    assert_eq!(bench.seen.frames.iter().filter(is_answer).count(), 0);
    for (n, event) in [10, 8, 0].into_iter().enumerate() {
        press(&mut bench, OUTSIDE, 30 + packets + 10 * n as u16, event);
    }
    assert_eq!(reported(&bench), [('*', 1), ('8', 1), ('0', 2)]);
    assert_eq!(bench.doubts(), 1);
}

#[test]
fn a_code_of_which_some_keys_were_withheld_is_reported_whole() {
    let mut bench = answered_by(INSIDE);
    bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, 0));
    for n in 1..5 {
        bench.wait(20);
        bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, n));
    }
    press(&mut bench, OUTSIDE, 5, 10);
    press(&mut bench, INSIDE, 8, 8);
    press(&mut bench, INSIDE, 11, 0);
    let digits: String = reported(&bench).into_iter().map(|(digit, _)| digit).collect();
    assert_eq!(digits, "8*80");
}

#[test]
fn a_question_that_went_to_a_stranger_at_first_was_not_asked() {
    let mut bench = answered_by(INSIDE);
    let packets = ask(&mut bench);
    for n in 0..packets {
        let from = if n < 10 { OUTSIDE } else { INSIDE };
        bench.rtp(Leg::B, from, &Rtp::speech(9, n));
        bench.wait(20);
    }
    assert!((1..10).contains(&sent_to(&bench, OUTSIDE)));
    assert_eq!(was_asked(&bench), Some(false));
    assert_eq!((bench.doubts(), bench.epoch.current()), (2, Epoch(2)), "foreign, then another fit");
}

#[test]
fn a_foreign_source_learned_before_the_answer_is_doubt_after_it() {
    let mut bench = ringing_at(INSIDE);
    for n in 0..10 {
        bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, n));
        bench.wait(20);
    }
    assert_eq!(bench.doubts(), 0);
    bench.command(Command::Answered { call: CALL });
    bench.rtp(Leg::B, OUTSIDE, &Rtp::speech(9, 10));
    assert_eq!((bench.doubts(), bench.epoch.current()), (1, Epoch(1)));
}

fn reported(bench: &Bench) -> Vec<(char, u32)> {
    let digit = |event: &Event| match event {
        Event::Digit { digit, epoch, .. } => Some((*digit, epoch.0)),
        _ => None,
    };
    bench.seen.events.iter().filter_map(digit).collect()
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
