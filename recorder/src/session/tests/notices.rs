//! Notices on the wire.

use super::*;

fn play(bench: &mut Bench, leg: Leg, notice: Notice) {
    bench.command(Command::Play { call: CALL, leg, notice });
}

fn played(bench: &Bench) -> Vec<(Leg, Notice, bool)> {
    let ended = |event: &Event| match event {
        Event::Played { leg, notice, complete, .. } => Some((*leg, *notice, *complete)),
        _ => None,
    };
    bench.seen.events.iter().filter_map(ended).collect()
}

fn length_ms(bench: &Bench, notice: Notice) -> u64 {
    bench.session.prompts.prompt(notice).duration_ms()
}

#[test]
fn a_notice_is_spoken_into_the_stream_without_a_break_and_the_other_party_is_muted() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 10);
    play(&mut bench, Leg::B, Notice::Stopped);
    let packets = length_ms(&bench, Notice::Stopped).div_ceil(20) as u16;
    for n in 0..packets {
        bench.rtp(Leg::B, B, &Rtp::speech(2, n));
        bench.speech(Leg::A, 1, 10 + n, 1);
    }
    bench.speech(Leg::A, 1, 10 + packets, 10);
    let heard = bench.heard_by(Leg::B);
    assert_unbroken(&heard);
    assert_eq!(heard.len(), usize::from(packets) + 20);
    let told: Vec<u8> =
        heard[10..10 + usize::from(packets)].iter().flat_map(|packet| packet.payload.clone()).collect();
    assert!(told.starts_with(bench.session.prompts.prompt(Notice::Stopped).ulaw()));
    assert_eq!(heard[10 + usize::from(packets)].payload, Rtp::speech(1, 10 + packets).payload);
    assert_eq!(played(&bench), [(Leg::B, Notice::Stopped, true)]);
    assert_unbroken(&bench.heard_by(Leg::A));
    let told = bench.seen.frames.iter().filter_map(|frame| match frame.content {
        Content::Told { question, .. } => Some(question),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), vec![false; packets.into()], "it is no question");
}

#[test]
fn a_notice_is_said_to_play_when_its_first_packet_leaves_and_once() {
    let mut bench = Bench::answered();
    bench.wait(500);
    bench.epoch.raise();
    play(&mut bench, Leg::A, Notice::Question);
    bench.wait(1_000);
    let (leg, notice, epoch) = (Leg::A, Notice::Question, Epoch(1));
    let at = Now { mono: Mono(500_000), wall: Wall(500_000) };
    assert_eq!(bench.seen.events, [Event::Playing { call: CALL, leg, notice, epoch, at }]);
    let mut held = Bench::answered();
    held.describe(Leg::A, RemoteMedia { receives: false, ..media(A) }, SourceChange::Same);
    play(&mut held, Leg::A, Notice::Question);
    assert_eq!(held.seen.events, [Event::Played { call: CALL, leg, notice, complete: false }]);
}

#[test]
fn a_notice_is_paced_and_ends_after_its_last_packet() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 1);
    play(&mut bench, Leg::A, Notice::Recording);
    assert_eq!(bench.heard_by(Leg::A).len(), 1);
    bench.wait(200);
    assert_eq!(bench.heard_by(Leg::A).len(), 11);
    bench.speech(Leg::A, 1, 2, 1);
    bench.wait(length_ms(&bench, Notice::Recording) - 240);
    assert!(played(&bench).is_empty());
    bench.wait(60);
    assert_eq!(played(&bench), [(Leg::A, Notice::Recording, true)]);
    assert_eq!(bench.session.poll_timeout(), None);
}

#[test]
fn a_stall_is_not_caught_up_in_a_burst() {
    let mut bench = Bench::answered();
    play(&mut bench, Leg::A, Notice::Question);
    bench.ms += 5_000;
    bench.wait(0);
    assert!(bench.heard_by(Leg::A).len() < 5);
}

#[test]
fn a_notice_to_a_leg_that_is_not_heard_from_is_not_complete() {
    let mut bench = Bench::answered();
    bench.speech(Leg::A, 1, 0, 10);
    play(&mut bench, Leg::A, Notice::Stopped);
    bench.wait(10_000);
    assert_eq!(played(&bench), [(Leg::A, Notice::Stopped, false)]);
}

#[test]
fn a_receiver_report_counts_as_being_heard_from() {
    let mut bench = Bench::answered();
    play(&mut bench, Leg::A, Notice::Stopped);
    bench.packet(Leg::A, Port::Rtcp, "10.0.0.1:4001", &[0x80, 201, 0, 1, 0, 0, 0, 9]);
    bench.wait(10_000);
    assert_eq!(played(&bench), [(Leg::A, Notice::Stopped, true)]);
}

#[test]
fn a_notice_stopped_replaced_or_played_to_a_held_leg_is_not_complete() {
    let mut bench = Bench::answered();
    play(&mut bench, Leg::A, Notice::Question);
    bench.speech(Leg::A, 1, 0, 5);
    bench.command(Command::StopPlaying { call: CALL, leg: Leg::A });
    play(&mut bench, Leg::A, Notice::Question);
    play(&mut bench, Leg::A, Notice::Stopped);
    bench.speech(Leg::A, 1, 5, 5);
    bench.describe(Leg::A, RemoteMedia { receives: false, ..media(A) }, SourceChange::Same);
    bench.wait(100);
    let cut = (Leg::A, Notice::Question, false);
    assert_eq!(played(&bench), [cut, cut, (Leg::A, Notice::Stopped, false)]);
}

#[test]
fn both_legs_are_told_in_their_own_law_and_the_tap_hears_what_each_was_told() {
    let mut bench = Bench::answered();
    let mut a_law = media(B);
    a_law.formats.remove(0);
    bench.describe(Leg::B, a_law, SourceChange::Same);
    let mut u_law = media(A);
    u_law.formats.remove(1);
    bench.describe(Leg::A, u_law, SourceChange::Same);
    play(&mut bench, Leg::A, Notice::Question);
    play(&mut bench, Leg::B, Notice::Question);
    bench.wait(1_000);
    for (leg, payload_type, octets) in [
        (Leg::A, 0, bench.session.prompts.prompt(Notice::Question).ulaw()),
        (Leg::B, 8, bench.session.prompts.prompt(Notice::Question).alaw()),
    ] {
        let heard = bench.heard_by(leg);
        assert!(heard.iter().all(|packet| packet.payload_type == payload_type));
        let told: Vec<u8> = bench
            .seen
            .frames
            .iter()
            .filter(|frame| frame.leg == leg)
            .flat_map(|frame| {
                let Content::Told { payload, question: true, .. } = &frame.content else {
                    panic!("{frame:?}")
                };
                payload.as_slice().to_vec()
            })
            .collect();
        assert_eq!(told, octets[..51 * 160]);
        assert_eq!(told, heard.into_iter().flat_map(|packet| packet.payload).collect::<Vec<u8>>());
    }
}

#[test]
fn a_leg_without_g711_cannot_be_told() {
    let mut bench = Bench::answered();
    let mut g729 = media(A);
    g729.formats.truncate(1);
    g729.formats[0] = StreamFormat { payload_type: 18, encoding: "G729".to_owned(), clock_rate: 8_000 };
    bench.describe(Leg::A, g729, SourceChange::Same);
    play(&mut bench, Leg::A, Notice::Question);
    assert_eq!(bench.seen.events, [Event::CannotPlay { call: CALL, leg: Leg::A }]);
}

#[test]
fn packets_are_as_long_as_the_leg_asked_for() {
    let mut bench = Bench::answered();
    bench.describe(Leg::A, RemoteMedia { ptime_ms: 30, ..media(A) }, SourceChange::Same);
    play(&mut bench, Leg::A, Notice::Question);
    bench.wait(300);
    let heard = bench.heard_by(Leg::A);
    assert_eq!((heard.len(), heard[0].payload.len()), (11, 240));
    assert_eq!(heard[1].timestamp.wrapping_sub(heard[0].timestamp), 240);
}
