//! The captures in `pcaps/`, played from leg A.

use super::*;

/// Arrival in ms and UDP payload of each packet of a capture (classic pcap, little endian, Ethernet, IPv4).
fn capture(name: &str) -> Vec<(u64, Vec<u8>)> {
    let file = format!("{}/../pcaps/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(file).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(word(0), 0xa1b2_c3d4);
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let us = word(at) as u64 * 1_000_000 + word(at + 4) as u64;
        let ip = &bytes[at + 16 + 14..at + 16 + word(at + 8)];
        packets.push((us / 1_000, ip[usize::from(ip[0] & 15) * 4 + 8..].to_vec()));
        at += 16 + word(at + 8);
    }
    packets
}

fn play(bench: &mut Bench, name: &str) -> Vec<(u64, Vec<u8>)> {
    let packets = capture(name);
    let (begin, start) = (bench.ms, packets[0].0);
    for (ms, packet) in &packets {
        bench.wait(begin + ms - start - bench.ms);
        bench.packet(Leg::A, Port::Rtp, A, packet);
    }
    packets
}

fn distances(packets: &[Rtp]) -> Vec<(u16, u32)> {
    let step = |pair: &[Rtp]| {
        (pair[1].sequence.wrapping_sub(pair[0].sequence), pair[1].timestamp.wrapping_sub(pair[0].timestamp))
    };
    packets.windows(2).map(step).collect()
}

fn parsed(packets: &[(u64, Vec<u8>)]) -> Vec<Rtp> {
    packets.iter().map(|(_, bytes)| Rtp::parse(bytes)).collect()
}

#[test]
fn loss_stays_where_it_was_and_is_counted() {
    let mut bench = Bench::answered();
    let sent = parsed(&play(&mut bench, "02_loss_05pct"));
    assert_eq!(distances(&bench.heard_by(Leg::B)), distances(&sent));
    let [a, _] = bench.end();
    assert_eq!((a.packets, a.lost, a.codec.as_deref()), (480, 20, Some("PCMU")));
    assert!(a.mos.unwrap() < 4.3);
}

#[test]
fn an_ssrc_change_is_one_stream_to_the_far_side_and_a_doubt_to_the_hub() {
    let mut bench = Bench::answered();
    play(&mut bench, "07_ssrc_change_same_clock");
    assert_unbroken(&bench.heard_by(Leg::B));
    assert_eq!(bench.heard_by(Leg::B).len(), 500);
    assert_eq!((bench.doubts(), bench.epoch.current()), (1, Epoch(1)));
    let stamps: Vec<u32> = bench.seen.frames.iter().map(|frame| frame.epoch.0).collect();
    assert_eq!(stamps, [[0; 250], [1; 250]].concat());
    assert_eq!(bench.end()[0].lost, 0);
}

#[test]
fn an_ssrc_change_before_the_answer_is_no_doubt() {
    let mut bench = Bench::described();
    play(&mut bench, "07_ssrc_change_same_clock");
    assert_eq!((bench.doubts(), bench.epoch.current()), (0, Epoch(0)));
}

#[test]
fn an_hours_leap_does_not_reach_the_far_side() {
    let mut bench = Bench::answered();
    play(&mut bench, "09_ts_jump_plus_1h_same_ssrc");
    assert_unbroken(&bench.heard_by(Leg::B));
    assert!(bench.end()[0].jitter_ms < 1.0);
}

#[test]
fn wrapping_numbers_are_unbroken() {
    let mut bench = Bench::answered();
    play(&mut bench, "11_seq_and_ts_wrap");
    assert_unbroken(&bench.heard_by(Leg::B));
    assert_eq!(bench.end()[0].lost, 0);
}

#[test]
fn one_press_is_one_digit_also_when_every_packet_comes_twice() {
    for name in ["14_dtmf_1_rfc4733", "17_dtmf_1_duplicated"] {
        let mut bench = Bench::answered();
        play(&mut bench, name);
        assert_eq!(bench.digits(), "1", "{name}");
        assert_eq!(bench.heard_by(Leg::B).iter().filter(|packet| packet.payload_type == 101).count() % 13, 0);
    }
}

#[test]
fn csrcs_extension_and_padding_pass_bit_for_bit() {
    let mut bench = Bench::answered();
    let packets = play(&mut bench, "23_ext_csrc_padding");
    for ((_, before), (.., after)) in packets.iter().zip(&bench.seen.sent) {
        assert_eq!((before[0], &before[12..]), (after[0], &after[12..]));
    }
    assert_eq!(bench.seen.sent.len(), 400);
    let tapped = bench.seen.frames.iter().map(|frame| match &frame.content {
        Content::Rtp { payload, .. } => payload.as_slice().to_vec(),
        other => panic!("{other:?}"),
    });
    assert!(tapped.eq(parsed(&packets).into_iter().map(|packet| packet.payload)));
}

#[test]
fn jitter_of_arrival_changes_no_number() {
    let mut bench = Bench::answered();
    let sent = parsed(&play(&mut bench, "25_jitter_0_120ms"));
    assert_eq!(distances(&bench.heard_by(Leg::B)), distances(&sent));
    let [a, _] = bench.end();
    assert_eq!(a.lost, 0);
    assert!(a.jitter_ms > 10.0, "{}", a.jitter_ms);
}

#[test]
fn a_pause_of_seventy_seconds_is_neither_loss_nor_an_end() {
    let mut bench = Bench::answered();
    let sent = parsed(&play(&mut bench, "28_long_hold_gap_70s"));
    assert_eq!(bench.heard_by(Leg::B).len(), sent.len());
    assert_eq!((bench.end()[0].lost, bench.doubts()), (0, 0));
}

#[test]
fn stun_dtls_zrtp_and_t38_are_not_passed_on() {
    let mut bench = Bench::answered();
    play(&mut bench, "29_stun_dtls_zrtp_t38_on_rtp_port");
    assert_eq!(bench.heard_by(Leg::B).len(), 500);
    assert_eq!(bench.seen.frames.len(), 500);
    assert_eq!(bench.end()[0].refused, 16);
}
