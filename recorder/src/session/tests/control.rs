//! Descriptions, holding, RTCP, and what is not audio.

use rtcp_types::{Compound, Packet, ReceiverReport, ReportBlock, RtcpPacketWriterExt, SenderReport};

use super::*;

fn rtcp_to(bench: &Bench, leg: Leg) -> Vec<Vec<u8>> {
    let path = Path { stream: 0, leg, port: Port::Rtcp };
    bench.seen.sent.iter().filter(|(on, ..)| *on == path).map(|(.., bytes)| bytes.clone()).collect()
}

#[test]
fn each_leg_hears_one_stream_of_our_own_with_the_audio_untouched() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 0x1111, 500, 50);
    let heard = bench.heard_by(Leg::B);
    assert_unbroken(&heard);
    assert_ne!(heard[0].ssrc, 0x1111);
    let spoken = (500..550).map(|n| Rtp::speech(1, n).payload);
    assert!(heard.into_iter().map(|packet| packet.payload).eq(spoken));
    assert!(bench.seen.sent.iter().all(|(_, to, _)| *to == B.parse().unwrap()));
}

#[test]
fn nothing_is_relayed_before_both_legs_are_described() {
    let mut bench = Bench::new(false);
    bench.speech(Leg::A, 1, 0, 3);
    bench.describe(Leg::A, media(A), SourceChange::Announced);
    bench.speech(Leg::A, 1, 3, 3);
    assert!(bench.seen.sent.is_empty());
    bench.describe(Leg::B, media(B), SourceChange::Announced);
    bench.speech(Leg::A, 1, 6, 3);
    assert_eq!(bench.heard_by(Leg::B).len(), 3);
}

#[test]
fn a_client_that_sends_from_another_interface_is_learned() {
    let mut bench = Bench::new(false);
    bench.describe(Leg::A, media("127.0.0.11:4000"), SourceChange::Announced);
    bench.describe(Leg::B, media(B), SourceChange::Announced);
    bench.command(Command::Answered { call: CALL });
    for n in 0..50 {
        bench.rtp(Leg::A, "127.0.0.1:4000", &Rtp::speech(1, n));
        bench.speech(Leg::B, 2, n, 1);
    }
    assert_eq!(bench.heard_by(Leg::B).len(), 47, "three packets on probation");
    let last = bench.seen.sent.iter().rfind(|(path, ..)| path.leg == Leg::A);
    assert_eq!(last.map(|(_, to, _)| *to), Some("127.0.0.1:4000".parse().unwrap()));
    assert_eq!((bench.doubts(), bench.epoch.current()), (1, Epoch(1)), "heard, but nobody vouches for it");
}

#[test]
fn payload_types_are_mapped_by_name() {
    let mut bench = Bench::answered();
    let mut other = media(B);
    other.formats[2].payload_type = 96;
    bench.describe(Leg::B, other, SourceChange::Same);
    bench.rtp(Leg::A, A, &Rtp::event(1, 0, 0, 5, false, 160));
    assert_eq!(bench.heard_by(Leg::B)[0].payload_type, 96);
    bench.rtp(Leg::A, A, &Rtp { payload_type: 120, ..Rtp::speech(1, 1) });
    assert_eq!(bench.heard_by(Leg::B).len(), 1, "nobody described 120");
}

#[test]
fn a_leg_that_wants_no_media_gets_none_and_one_that_sends_none_is_not_tapped() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 5);
    bench.speech(Leg::B, 2, 0, 5);
    let frames = bench.seen.frames.len();
    bench.describe(Leg::A, RemoteMedia { sends: false, receives: false, ..media(A) }, SourceChange::Same);
    bench.speech(Leg::B, 2, 5, 5);
    assert_eq!(bench.heard_by(Leg::A).len(), 5);
    bench.speech(Leg::A, 1, 5, 5);
    let held: Vec<Leg> = bench.seen.frames[frames..].iter().map(|frame| frame.leg).collect();
    assert_eq!(held, [Leg::B; 5]);
    bench.describe(Leg::A, media(A), SourceChange::Same);
    bench.speech(Leg::B, 2, 10, 5);
    let heard = bench.heard_by(Leg::A);
    assert_eq!(heard[5].sequence, heard[4].sequence.wrapping_add(1), "a hold is not loss");
}

#[test]
fn a_change_that_signalling_announced_is_no_doubt_and_the_next_is() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 150);
    bench.describe(Leg::A, media("10.0.0.3:7000"), SourceChange::Announced);
    bench.rtp(Leg::A, "10.0.0.3:7000", &Rtp::speech(5, 9_000));
    assert_eq!(bench.doubts(), 0);
    bench.wait(20);
    bench.rtp(Leg::A, "10.0.0.3:7000", &Rtp::speech(6, 100));
    assert_eq!((bench.doubts(), bench.epoch.current()), (1, Epoch(1)));
    assert_eq!(bench.seen.frames.last().unwrap().epoch, Epoch(1), "raised before it was stamped");
    assert_eq!(bench.heard_by(Leg::B).len(), 152);
}

#[test]
fn a_sender_report_speaks_of_our_stream() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 10, 5);
    let heard = bench.heard_by(Leg::B);
    let mut report = [0; 28];
    let theirs = SenderReport::builder(1).ntp_timestamp(99).rtp_timestamp(10 * 160).packet_count(70);
    theirs.write_into(&mut report).unwrap();
    bench.packet(Leg::A, Port::Rtcp, "10.0.0.1:4001", &report);
    let sent = rtcp_to(&bench, Leg::B);
    let parts: Vec<Packet<'_>> = Compound::parse(&sent[0]).unwrap().map(Result::unwrap).collect();
    let [Packet::Sr(ours), Packet::Sdes(names)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((ours.ssrc(), ours.rtp_timestamp()), (heard[0].ssrc, heard[0].timestamp));
    assert_eq!((ours.ntp_timestamp(), ours.packet_count(), ours.octet_count()), (99, 5, 800));
    assert!(names.chunks().all(|chunk| chunk.ssrc() == heard[0].ssrc));
}

#[test]
fn a_report_block_is_told_to_the_source_in_its_own_numbers() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 0xAAAA, 65_530, 5);
    for n in 0..5 {
        bench.rtp(Leg::A, A, &Rtp::speech(0xAAAA, 65_535u16.wrapping_add(n)));
    }
    let heard = bench.heard_by(Leg::B);
    let about = |ssrc, sequence| {
        ReportBlock::builder(ssrc).fraction_lost(3).cumulative_lost(4).extended_sequence_number(sequence)
    };
    let mut report = [0; 56];
    ReceiverReport::builder(2)
        .add_report_block(about(heard[9].ssrc, u32::from(heard[9].sequence)))
        .add_report_block(about(0xDEAD, 1))
        .write_into(&mut report)
        .unwrap();
    bench.packet(Leg::B, Port::Rtcp, "10.0.0.2:5001", &report);
    let sent = rtcp_to(&bench, Leg::A);
    let parts: Vec<Packet<'_>> = Compound::parse(&sent[0]).unwrap().map(Result::unwrap).collect();
    let Packet::Rr(ours) = &parts[0] else { panic!("{parts:?}") };
    let blocks: Vec<ReportBlock<'_>> = ours.report_blocks().collect();
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].ssrc(), blocks[0].extended_sequence_number()), (0xAAAA, 0x1_0003));
    assert_eq!((blocks[0].fraction_lost(), blocks[0].cumulative_lost()), (3, 4));
}

#[test]
fn malformed_rtcp_is_dropped_and_counted() {
    let mut bench = Bench::answered();
    for bytes in [&[0x80u8, 200, 0, 6][..], &[0x81, 201], &[0, 0, 0, 0], &[]] {
        bench.packet(Leg::A, Port::Rtcp, "10.0.0.1:4001", bytes);
    }
    assert!(bench.seen.sent.is_empty());
    assert_eq!(bench.end()[0].refused, 4);
}

#[test]
fn a_stream_that_is_not_audio_passes_as_it_is_and_is_never_tapped() {
    let mut bench = Bench::new(false);
    for (leg, address) in [(Leg::A, A), (Leg::B, B)] {
        bench.describe(leg, RemoteMedia { audio: false, ..media(address) }, SourceChange::Announced);
    }
    bench.packet(Leg::A, Port::Rtp, A, b"T.38 or whatever");
    bench.packet(Leg::A, Port::Rtp, "10.9.9.9:1", b"not from there");
    assert_eq!(bench.seen.sent.len(), 1);
    assert_eq!(bench.seen.sent[0].2, b"T.38 or whatever");
    assert!(bench.seen.frames.is_empty());
}

#[test]
fn an_emergency_call_passes_bit_for_bit_with_no_tap_no_notice_and_no_digit() {
    let mut bench = Bench::new(true);
    bench.describe(Leg::A, media(A), SourceChange::Announced);
    bench.describe(Leg::B, media(B), SourceChange::Announced);
    bench.command(Command::Answered { call: CALL });
    bench.speech(Leg::A, 1, 0, 5);
    for (n, key) in [10, 8, 0].into_iter().enumerate() {
        bench.rtp(Leg::A, A, &Rtp::event(1, 5 + n as u16, n as u32 * 1_000, key, true, 800));
    }
    bench.rtp(Leg::A, A, &Rtp::speech(99, 0));
    let expected: Vec<Vec<u8>> = (0..5).map(|n| Rtp::speech(1, n).bytes()).collect();
    let sent: Vec<Vec<u8>> = bench.seen.sent.iter().map(|(.., bytes)| bytes.clone()).collect();
    assert_eq!((&sent[..5], sent.len()), (&expected[..], 9));
    assert!(bench.seen.frames.is_empty() && bench.seen.events.is_empty());
    assert_eq!(bench.epoch.current(), Epoch(0));
    bench.command(Command::Play { call: CALL, leg: Leg::A, notice: Notice::Question });
    assert_eq!(bench.seen.events, [Event::CannotPlay { call: CALL, leg: Leg::A }]);
    bench.seen.events.clear();
    assert_eq!(bench.end()[0].packets, 9);
}

#[test]
fn an_emergency_caller_behind_nat_is_heard_from_the_first_packet() {
    let mut bench = Bench::new(true);
    bench.describe(Leg::A, media("192.168.1.5:4000"), SourceChange::Announced);
    bench.describe(Leg::B, media(B), SourceChange::Announced);
    bench.rtp(Leg::A, "198.51.100.7:31000", &Rtp::speech(1, 0));
    bench.speech(Leg::B, 2, 0, 1);
    assert_eq!(bench.seen.sent.len(), 2);
    assert_eq!(bench.seen.sent[1].1, "198.51.100.7:31000".parse().unwrap());
}

#[test]
fn the_conversation_is_the_first_audio_that_both_legs_take() {
    let mut bench = Bench::new(false);
    let (first, second) = (Some(media(A)), Some(media("10.0.0.1:4002")));
    let third = Some(media("10.0.0.2:5002"));
    for (leg, streams) in [(Leg::A, vec![first, second]), (Leg::B, vec![None, third])] {
        let (signalled_from, change) = (IpAddr::from([10, 0, 0, 9]), SourceChange::Announced);
        bench.command(Command::Describe { call: CALL, leg, signalled_from, streams, change });
    }
    bench.command(Command::Play { call: CALL, leg: Leg::B, notice: Notice::Stopped });
    assert_eq!(bench.seen.sent[0].0, Path { stream: 1, leg: Leg::B, port: Port::Rtp });
}
