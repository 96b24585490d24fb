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
        Event::Digit { leg: Leg::A, digit: '1', epoch: Epoch(0), at, .. } if at.mono == Mono(60_000)
    ));
    assert_eq!(bench.heard_by(Leg::B).len(), 11, "and they pass on");
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
