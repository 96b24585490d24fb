//! The process ends at any byte; the disk lies in any bit.

use std::path::Path;

use consent::{GapCause, Leg, RecordingId};
use recorder::spool::{recover, recover_with};
use recorder::{Output, RecoveryError, Sealed, SpoolWriter};

use crate::rig::{DISPATCH, KEY, Recorded, Rig, wall};

/// A short dispatch call: what was in the file after each output, with the time.
fn growing() -> (Rig, Vec<(u64, usize)>) {
    let mut rig = Rig::on(DISPATCH);
    let mut sizes = Vec::new();
    for _ in 0..70 {
        rig.talk(20);
        sizes.push((rig.ms, rig.files.values().next().map_or(0, Vec::len)));
    }
    (rig, sizes)
}

/// In memory where there is such a place: thousands of files are synced here.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn part(directory: &Path) -> std::path::PathBuf {
    directory.join(format!("{}.part", RecordingId(1)))
}

/// What recovery makes of a file; `None` if there was no audio in it, of which then nothing is left.
fn recovered(file: &[u8]) -> Option<(Sealed, Vec<u8>)> {
    let directory = scratch();
    std::fs::write(part(directory.path()), file).unwrap();
    let mut unusable = Vec::new();
    let mut sealed =
        recover_with(directory.path(), &|_, _| Some(KEY.into()), &mut |file| unusable.push(file.cause));
    let Some(sealed) = sealed.pop() else {
        assert!(matches!(unusable[..], [RecoveryError::NoAudio]), "{unusable:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        return None;
    };
    assert!(unusable.is_empty(), "{unusable:?}");
    let bytes = std::fs::read(&sealed.file).unwrap();
    assert_eq!(sealed.bytes, bytes.len() as u64);
    Some((sealed, bytes))
}

#[test]
fn a_file_cut_at_any_byte_is_sealed_and_loses_only_what_was_not_whole() {
    let (rig, sizes) = growing();
    let whole = &rig.files[&RecordingId(1)];
    for length in 0..=whole.len() {
        // The process wrote `length` bytes and was killed before it wrote the next.
        let killed_ms = sizes.iter().find(|(_, size)| *size > length).map_or(rig.ms, |(ms, _)| *ms);
        let Some((sealed, bytes)) = recovered(&whole[..length]) else {
            assert!(killed_ms < 1_000, "no audio: killed at {killed_ms} ms, {length} bytes");
            continue;
        };
        assert!(sealed.recovered);
        assert!(sealed.duration_s > 0.0 && !sealed.intervals.is_empty());
        assert_eq!(sealed.started_at, wall(0));
        let unwritten_s = killed_ms as f64 / 1_000.0 - sealed.duration_s;
        assert!(unwritten_s <= 1.0, "{unwritten_s} s lost at byte {length}");
        let crash = sealed.gaps.last().unwrap();
        assert_eq!((crash.cause, crash.from_s), (GapCause::Crash, sealed.duration_s));
        assert!(crash.to_s >= crash.from_s + unwritten_s, "the loss is stated");
        if length % 97 == 0 {
            let recorded = Recorded::open(&bytes);
            if recorded.duration_ms() > 100 {
                assert!(recorded.hears(Leg::A, 440.0, 20, recorded.duration_ms()));
            }
        }
    }
}

#[test]
fn recovery_is_itself_cut_short_anywhere_and_repeated() {
    let (rig, _) = growing();
    let whole = &rig.files[&RecordingId(1)];
    let broken = &whole[..whole.len() - 5];
    let (first, complete) = recovered(broken).unwrap();
    for length in broken.len() * 3 / 4..complete.len() {
        let (again, bytes) = recovered(&complete[..length]).unwrap();
        if complete[..length].len() >= broken.len() {
            assert!(bytes == complete, "the same bytes at {length}");
            assert_eq!(again.sha256, first.sha256);
        }
        Recorded::open(&bytes);
    }
}

#[test]
fn recovery_once_more_changes_nothing() {
    let (rig, _) = growing();
    let directory = scratch();
    std::fs::write(part(directory.path()), &rig.files[&RecordingId(1)]).unwrap();
    let first = recover(directory.path(), &|_, _| Some(KEY.into()));
    let bytes = std::fs::read(&first[0].file).unwrap();
    let second = recover(directory.path(), &|_, _| Some(KEY.into()));
    assert_eq!(first, second);
    assert_eq!(bytes, std::fs::read(&second[0].file).unwrap());
    assert!(!part(directory.path()).exists());
}

#[test]
fn a_complete_file_that_was_not_renamed_is_no_crash() {
    let (mut rig, _) = growing();
    rig.end();
    let (sealed, _) = recovered(&rig.files[&RecordingId(1)]).unwrap();
    assert!(!sealed.recovered);
    assert_eq!(Sealed { file: rig.sealed[0].file.clone(), ..sealed }, rig.sealed[0]);
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_recording_is_detected() {
    let (mut rig, _) = growing();
    rig.end();
    let whole = &rig.files[&RecordingId(1)];
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let read = recorder::sealed::SealedReader::open(damaged.as_slice(), &KEY);
        assert!(read.and_then(recorder::sealed::SealedReader::read_to_end).is_err(), "byte {at}");
    }
}

#[test]
fn damage_in_the_middle_of_an_open_file_destroys_nothing() {
    let (rig, _) = growing();
    let mut damaged = rig.files[&RecordingId(1)].clone();
    let at = damaged.len() * 3 / 4;
    damaged[at] ^= 1;
    let directory = scratch();
    std::fs::write(part(directory.path()), &damaged).unwrap();
    let sealed = recover(directory.path(), &|_, _| Some(KEY.into()));
    assert_eq!(sealed.len(), 1);
    let kept = std::fs::read(part(directory.path()).with_extension("damaged")).unwrap();
    assert!(damaged.ends_with(&kept) && kept.len() > 100);
}

/// Both copies of what was killed before its first page of audio: nothing is sealed, and nothing is left.
#[test]
fn a_recording_killed_before_its_first_audio_is_removed_and_said_to_be() {
    let (first, second) = (scratch(), scratch());
    let mut spool = SpoolWriter::new(first.path(), Some(second.path())).unwrap();
    let mut rig = Rig::on(DISPATCH);
    rig.talk(40);
    let [begun @ Output::Create { twice: true, .. }] = &rig.outputs[..] else { panic!("{:?}", rig.outputs) };
    spool.apply(begun.clone());
    drop(spool);
    for directory in [first, second] {
        let files = || std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let left: Vec<_> = files().collect();
        let mut removed = Vec::new();
        let sealed = recover_with(directory.path(), &|_, _| Some(KEY.into()), &mut |file| removed.push(file));
        assert_eq!(sealed, []);
        assert!(matches!(&removed[..], [file] if left == [file.file.clone()]), "{removed:?}");
        assert!(matches!(removed[0].cause, RecoveryError::NoAudio));
        assert_eq!(files().count(), 0);
    }
}

/// Audio may be among what is damaged: then the file stays, for whoever can read it.
#[test]
fn a_file_damaged_before_its_first_audio_is_left_alone() {
    let mut rig = Rig::on(DISPATCH);
    rig.talk(40);
    let begun = rig.files[&RecordingId(1)].len();
    rig.talk(2_000);
    let mut damaged = rig.files[&RecordingId(1)].clone();
    damaged[begun + 40] ^= 1;
    let directory = scratch();
    std::fs::write(part(directory.path()), &damaged).unwrap();
    let mut causes = Vec::new();
    let sealed =
        recover_with(directory.path(), &|_, _| Some(KEY.into()), &mut |file| causes.push(file.cause));
    assert_eq!(sealed, []);
    assert!(matches!(causes[..], [RecoveryError::Read(_)]), "{causes:?}");
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(left.collect::<Vec<_>>(), [part(directory.path())]);
    assert_eq!(std::fs::read(part(directory.path())).unwrap(), damaged);
}

#[test]
fn without_its_key_a_file_is_left_alone() {
    let (rig, _) = growing();
    let directory = scratch();
    let file = part(directory.path());
    std::fs::write(&file, &rig.files[&RecordingId(1)]).unwrap();
    for key in [None, Some([1; 32])] {
        let mut unreadable = 0;
        let sealed = recover_with(directory.path(), &|_, _| key.map(Into::into), &mut |_| unreadable += 1);
        assert_eq!((sealed.len(), unreadable), (0, 1));
        assert_eq!(std::fs::read(&file).unwrap(), rig.files[&RecordingId(1)]);
    }
}

#[test]
fn a_crash_during_a_hold_keeps_what_was_before() {
    let mut rig = Rig::agreed();
    rig.talk(3_000);
    rig.change(|epoch| consent::Event::Held { leg: Leg::B, epoch });
    rig.talk(10_000);
    let (sealed, bytes) = recovered(&rig.files[&RecordingId(1)]).unwrap();
    let recorded = Recorded::open(&bytes);
    let conversation_ms = rig.ms - 10_000 - 200;
    assert!(recorded.duration_ms().abs_diff(conversation_ms) <= 20, "{}", recorded.duration_ms());
    assert_eq!(sealed.intervals.len(), 2);
    let crash = sealed.gaps.last().unwrap();
    assert_eq!((crash.cause, crash.to_s - crash.from_s), (GapCause::Crash, 2.0));
}

#[test]
fn no_canary_of_an_unconsented_call_reaches_any_output() {
    let mut rig = Rig::on(crate::rig::CONSENT);
    rig.answer();
    rig.ask(1_000);
    rig.digit(Leg::A, '2');
    rig.talk(1_000);
    rig.end();
    let bytes: usize = rig
        .outputs
        .iter()
        .map(|output| match output {
            Output::Create { bytes, .. } | Output::Append { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(bytes, 0);
}
