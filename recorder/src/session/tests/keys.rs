//! Keys, the withdrawal code, and swallowing.

use super::*;
use crate::Key;

/// One press of four packets (start, go on, end twice) with sequence numbers from `sequence` on.
fn press(bench: &mut Bench, leg: Leg, sequence: u16, event: u8) {
    let from = if leg == Leg::A { A } else { B };
    let began = u32::from(sequence) * 160;
    for (n, (end, duration)) in [(false, 160), (false, 320), (true, 480), (true, 480)].into_iter().enumerate()
    {
        bench.rtp(leg, from, &Rtp::event(1, sequence + n as u16, began, event, end, duration));
        bench.wait(20);
    }
}

#[test]
fn digits_are_reported_once_with_the_epoch_in_force() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 3);
    press(&mut bench, Leg::A, 3, 1);
    press(&mut bench, Leg::A, 7, 11);
    assert_eq!(bench.digits(), "1#");
    assert!(matches!(
        bench.seen.events[0],
        Event::Digit { leg: Leg::A, digit: '1', epoch: Epoch(0), at, .. } if at.mono == Mono(40_000)
    ));
    assert_eq!(bench.heard_by(Leg::B).len(), 11, "and they pass on");
}

/// What each row of the module's table dates a press by: a key is down from 1,000 ms on for 100 ms, a packet
/// leaves every 20 ms, and only the packets named arrive (0 to 4 go on, 5 to 7 are the end and its repeats).
#[test]
fn a_press_is_dated_by_when_it_began_whichever_of_its_packets_arrives_first() {
    for (arriving, dated_ms) in [
        (&[0, 1, 2, 3, 4, 5, 6, 7][..], 1_000),
        (&[1, 2, 3, 4, 5], 1_000),
        (&[4, 5, 6], 1_000),
        (&[5, 6, 7], 900),
        (&[6, 7], 920),
        (&[7], 940),
        (&[2, 0, 1], 1_000),
    ] {
        let mut bench = Bench::answered();
        for n in arriving {
            bench.ms = bench.ms.max(1_020 + 20 * n);
            let (end, duration) = (*n >= 5, 160 * (n + 1).min(5) as u16);
            bench.rtp(Leg::A, A, &Rtp::event(1, 50 + *n as u16, 8_000, 1, end, duration));
        }
        let [Event::Digit { at, .. }] = bench.seen.events[..] else { panic!("{:?}", bench.seen.events) };
        assert_eq!(at.mono, Mono(dated_ms * 1_000), "{arriving:?}");
        assert_eq!(at.wall, Wall(dated_ms as i64 * 1_000), "{arriving:?}");
    }
}

/// RFC 4733 §2.3.5: the duration counts in the clock of the format, which need not be the audio's.
#[test]
fn a_press_is_dated_by_the_clock_of_its_format() {
    let mut bench = Bench::described();
    let mut wide = media(A);
    let format =
        StreamFormat { payload_type: 102, encoding: "TELEPHONE-EVENT".to_owned(), clock_rate: 16_000 };
    wide.formats.push(format);
    bench.describe(Leg::A, wide, SourceChange::Same);
    bench.wait(1_000);
    bench.rtp(Leg::A, A, &Rtp { payload_type: 102, ..Rtp::event(1, 0, 0, 1, false, 1_600) });
    assert!(matches!(bench.seen.events[..], [Event::Digit { at, .. }] if at.mono == Mono(900_000)));
}

#[test]
fn an_event_that_is_no_key_is_no_digit() {
    let mut bench = Bench::answered();
    press(&mut bench, Leg::A, 0, 16);
    press(&mut bench, Leg::A, 10, 200);
    assert_eq!(bench.digits(), "");
}

#[test]
fn the_withdrawal_code_raises_the_epoch_before_its_last_digit_is_reported() {
    let mut bench = Bench::answered();
    for (n, event) in [10, 8, 0].into_iter().enumerate() {
        press(&mut bench, Leg::B, 10 * n as u16, event);
    }
    let epochs: Vec<u32> = bench
        .seen
        .events
        .iter()
        .map(|event| match event {
            Event::Digit { epoch, .. } => epoch.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((bench.digits().as_str(), epochs), ("*80", vec![0, 0, 1]));
    bench.rtp(Leg::B, B, &Rtp::speech(1, 40));
    assert_eq!(bench.seen.frames.last().unwrap().epoch, Epoch(1));
}

#[test]
fn a_code_pressed_by_both_parties_together_is_nobodys() {
    let mut bench = Bench::answered();
    press(&mut bench, Leg::A, 0, 10);
    press(&mut bench, Leg::B, 0, 8);
    press(&mut bench, Leg::A, 10, 0);
    assert_eq!(bench.epoch.current(), Epoch(0));
}

#[test]
fn swallowed_digits_do_not_reach_the_other_leg_and_leave_no_gap() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 3);
    bench.command(Command::SwallowDigits { call: CALL, leg: Leg::A, swallow: true });
    press(&mut bench, Leg::A, 3, 1);
    bench.command(Command::SwallowDigits { call: CALL, leg: Leg::A, swallow: false });
    bench.speech(Leg::A, 1, 7, 3);
    let heard = bench.heard_by(Leg::B);
    assert!(heard.iter().all(|packet| packet.payload_type == 0));
    let steps: Vec<u16> =
        heard.windows(2).map(|pair| pair[1].sequence.wrapping_sub(pair[0].sequence)).collect();
    assert_eq!((bench.digits().as_str(), steps), ("1", vec![1; 5]));
}

#[test]
fn the_tap_is_told_which_span_to_cut_and_the_key_only_of_an_answer() {
    let mut bench = Bench::answered();
    press(&mut bench, Leg::A, 0, 1);
    bench.command(Command::SwallowDigits { call: CALL, leg: Leg::A, swallow: true });
    press(&mut bench, Leg::A, 10, 2);
    let spans: Vec<(u32, u16, Option<Key>)> = bench
        .seen
        .frames
        .iter()
        .map(|frame| match frame.content {
            Content::Digit { timestamp, duration, answer, .. } => (timestamp, duration, answer),
            _ => panic!("audio"),
        })
        .collect();
    let key = Some(Key('2'));
    assert_eq!(spans[..4], [(0, 160, None), (0, 320, None), (0, 480, None), (0, 480, None)]);
    assert_eq!(spans[4..], [(1_600, 160, key), (1_600, 320, key), (1_600, 480, key), (1_600, 480, key)]);
}
