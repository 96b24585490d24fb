//! A consent line keeps audio only when every party has pressed the key, keeps the asking with it, and stops
//! at a withdrawal.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{CITIZEN, CONSENT, NEVER, Site, number, text};
use crate::phone::Call;
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ, LADDER_S, RATE};

/// Two languages, spoken slowly.
const LONGEST_PROMPT: Duration = Duration::from_secs(40);
/// Bytes of a packet of the canary, and what is looked for: any half of it.
const CANARY_BYTES: usize = 160;

/// Waits for the question on both legs and presses 1 on both. Returns the question as each heard it.
pub(crate) fn both_agree(outgoing: &Call, incoming: &Call) -> [Vec<i16>; 2] {
    let questions = asked(outgoing, incoming);
    outgoing.media().press("1");
    incoming.media().press("1");
    questions
}

fn asked(outgoing: &Call, incoming: &Call) -> [Vec<i16>; 2] {
    let since = incoming.media().first_sent();
    [outgoing, incoming].map(|call| call.media().prompt(since, LONGEST_PROMPT, &canary()))
}

/// A call to the consent line, answered; both parties silent.
fn answered(site: &Site) -> (crate::phone::Phone, crate::phone::Phone, Call, Call) {
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(CONSENT, CITIZEN);
    let incoming = pbx.incoming();
    incoming.answer();
    outgoing.answered();
    (carrier, pbx, outgoing, incoming)
}

fn states(call: &Value) -> Vec<&str> {
    call["parties"]
        .as_array()
        .expect("parties")
        .iter()
        .map(|party| text(&party["consent"]["state"]))
        .collect()
}

#[test]
fn when_both_press_1_the_recording_begins_with_the_question_and_both_answers() {
    let site = Site::with(|_, text| text.replace(r#"languages = ["en"]"#, r#"languages = ["en", "es"]"#));
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, incoming) = answered(&site);
    let questions = both_agree(&outgoing, &incoming);
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    std::thread::sleep(Duration::from_secs(8));
    outgoing.bye();
    incoming.ended();

    let call = site.closed_call();
    assert_eq!(call["recording_outcome"], "recorded", "{call}");
    assert_eq!(call["basis"], "all-party-consent");
    assert_eq!(states(&call), ["given", "given"]);
    let recording = site.sealed_recording(&call);
    assert_eq!(recording["basis"], "all-party-consent");
    assert_eq!(recording["retention"], "RT-CONSENT-REC");

    let channels = site.export(&recording);
    for ((channel, question), base) in channels.iter().zip(&questions).zip([LADDER_A_HZ, LADDER_B_HZ]) {
        // Two seconds from within the question, as it was heard, lie in the first half of the recording.
        let start = question.iter().position(|sample| sample.abs() > 1_000).expect("a loud question");
        let needle = &question[start..start + 2 * RATE];
        let (lag, fit) = sound::correlate(needle, channel, 0..(4 * RATE) as i64);
        assert!(fit > 0.8, "the question is in the recording: {fit} at {lag}");
        let conversation = sound::find_ladder(channel, base);
        assert!(conversation.seconds() > 3.0 && conversation.breaks <= 1, "{conversation:?}");
        let before = (conversation.from_s * RATE as f64) as usize;
        assert!(sound::key_one_sounds(&channel[..before]), "the key that answered is in the preamble");
    }
    // The answers were kept from the other party.
    assert!(outgoing.media().keys_heard().is_empty() && incoming.media().keys_heard().is_empty());
}

#[test]
fn when_one_presses_2_no_audio_is_anywhere() {
    let call = refused(|outgoing, incoming| {
        asked(outgoing, incoming);
        outgoing.media().press("1");
        incoming.media().press("2");
        let since = Instant::now();
        std::thread::sleep(Duration::from_secs(4));
        let crossed = |packet: &crate::media::Received| packet.at > since && packet.payload == canary();
        assert!(outgoing.media().received().iter().any(crossed), "the canary crosses the gateway");
    });
    assert_eq!(call["recording_outcome"], "refused", "{call}");
    assert!(states(&call).contains(&"declined"), "{call}");
}

#[test]
fn when_one_presses_nothing_no_audio_is_anywhere() {
    let call = refused(|outgoing, incoming| {
        asked(outgoing, incoming);
        outgoing.media().press("1");
        // `answer_timeout_s` and a little.
        std::thread::sleep(Duration::from_secs(7));
    });
    assert_eq!(call["recording_outcome"], "refused", "silence is never consent: {call}");
    assert!(states(&call).contains(&"silent"), "{call}");
}

#[test]
fn when_a_party_hangs_up_during_the_question_no_audio_is_anywhere() {
    let call = refused(|_, _| std::thread::sleep(Duration::from_secs(3)));
    assert_eq!(call["recording_outcome"], "prompt-incomplete", "{call}");
}

/// A call to the consent line on which `script` does not lead to consent of all; both parties send the canary
/// in every packet, from before the question to the end. Afterwards nothing that was said may be found in the
/// data directory or the log.
fn refused(script: impl FnOnce(&Call, &Call)) -> Value {
    let site = Site::new();
    let gateway = site.start_logging("debug");
    let (_carrier, _pbx, outgoing, incoming) = answered(&site);
    outgoing.media().say_raw(canary());
    incoming.media().say_raw(canary());
    script(&outgoing, &incoming);
    std::thread::sleep(Duration::from_secs(4));
    outgoing.bye();
    incoming.ended();
    let call = site.closed_call();
    assert_eq!(call["basis"], Value::Null, "{call}");
    assert_eq!(call["recordings"].as_array().map(Vec::len), Some(0), "{call}");
    no_audio(&site);
    // Nor does the end of the process write anything.
    gateway.terminate();
    no_audio(&site);
    call
}

fn no_audio(site: &Site) {
    assert!(site.recordings().is_empty());
    let mut others = 0;
    for file in site.data_files() {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!holds_audio(&bytes), "audio in {}", file.display());
        let name = file.strip_prefix(site.data()).expect("a data file").to_string_lossy().into_owned();
        assert!(!name.starts_with("audio"), "an audio object: {name}");
        if !name.contains("earmark.db") && !name.contains("journal") {
            others += bytes.len();
        }
    }
    // Encrypted audio would not show the canary: 4 s of it, however coded, would be longer than this.
    assert!(others < 8_192, "{others} bytes besides database and journal: {:?}", site.data_files());
    assert!(!holds_audio(site.log().as_bytes()), "audio in the log");
}

/// A packet's worth of bytes that occurs nowhere by chance.
fn canary() -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(CANARY_BYTES)
    .collect()
}

/// Whether the canary is in `bytes`, as received or decoded to 16-bit samples, or any Ogg or Opus header.
fn holds_audio(bytes: &[u8]) -> bool {
    let canary = canary();
    let linear: Vec<u8> = canary.iter().flat_map(|code| sound::ulaw_decode(*code).to_le_bytes()).collect();
    let mut traces: Vec<&[u8]> = vec![b"OggS", b"OpusHead", b"RIFF"];
    traces.extend(canary.chunks(16));
    traces.extend(linear.chunks(32));
    traces.iter().any(|trace| bytes.windows(trace.len()).any(|window| window == *trace))
}

#[test]
fn the_search_would_find_a_canary() {
    let mut file = vec![0; 1_000];
    assert!(!holds_audio(&file));
    file.extend_from_slice(&canary()[40..]);
    assert!(holds_audio(&file));
    let linear: Vec<u8> =
        canary()[..80].iter().flat_map(|code| sound::ulaw_decode(*code).to_le_bytes()).collect();
    assert!(holds_audio(&linear));
    assert!(holds_audio(b"....OggS...."));
}

#[test]
fn a_withdrawal_ends_the_recording_there() {
    let site = Site::new();
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, incoming) = answered(&site);
    both_agree(&outgoing, &incoming);
    let agreed = Instant::now();
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    std::thread::sleep(Duration::from_secs(8));
    incoming.media().press("*80");
    let talked = agreed.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(5));
    outgoing.bye();
    incoming.ended();

    let call = site.closed_call();
    assert_eq!(call["recording_outcome"], "withdrawn", "{call}");
    assert!(states(&call).contains(&"withdrawn"), "{call}");
    let recording = site.sealed_recording(&call);
    let channels = site.export(&recording);
    for (channel, base) in channels.iter().zip([LADDER_A_HZ, LADDER_B_HZ]) {
        let found = sound::find_ladder(channel, base);
        let kept = found.to_s - found.from_s;
        assert!(kept <= talked + 0.1, "nothing after the withdrawal: {kept} s of {talked} s");
        // The look-back of a second is wiped, and the keys took most of another.
        assert!(kept >= talked - 5.0 && kept > 2.0, "what was said before stays: {kept} s of {talked} s");
    }
    assert!(number(&recording["duration_s"]) < channels[0].len() as f64 / RATE as f64 + 0.1);
    let explained = site.json(&["explain", text(&call["id"])]);
    let decisions = explained["decisions"].as_array().expect("decisions");
    let last = decisions.iter().rfind(|decision| decision["reason"] == "withdrawn").expect("the withdrawal");
    assert_eq!(last["gate"], "shut");
}

#[test]
fn a_never_line_is_not_asked_and_keeps_nothing() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(NEVER, CITIZEN);
    outgoing.media().say_raw(canary());
    let incoming = pbx.incoming();
    incoming.media().say_raw(canary());
    incoming.answer();
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(3));
    outgoing.bye();
    incoming.ended();
    let call = site.closed_call();
    assert_eq!(call["recording_outcome"], "never-line", "{call}");
    let strange = incoming.media().received().iter().filter(|packet| packet.payload != canary()).count();
    assert_eq!(strange, 0, "no prompt is played, every packet crosses unchanged");
    no_audio(&site);
}

#[test]
fn held_parties_are_not_recorded_and_a_resume_goes_on() {
    let site = Site::new();
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, incoming) = answered(&site);
    both_agree(&outgoing, &incoming);
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    std::thread::sleep(Duration::from_secs(6));
    incoming.hold();
    // What is said into the hold is another sound, so that it can be told apart.
    outgoing.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    std::thread::sleep(Duration::from_secs(3));
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    incoming.resume();
    std::thread::sleep(Duration::from_secs(4));
    outgoing.bye();
    incoming.ended();
    let call = site.closed_call();
    let recording = site.sealed_recording(&call);
    let channel = &site.export(&recording)[0];
    assert!(sound::find_ladder(channel, LADDER_B_HZ).on <= 1, "nothing of the hold is kept");
    let gaps = recording["gaps"].as_array().expect("gaps");
    assert!(gaps.iter().any(|gap| gap["cause"] == "hold"), "the hold is stated: {recording}");
    assert!(number(&recording["duration_s"]) > 10.0, "the resumed part is kept: {recording}");
}
