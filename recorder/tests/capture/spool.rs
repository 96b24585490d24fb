//! Real files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use recorder::spool::{recover, release};
use recorder::{Event, Output, SpoolReport, SpoolWriter};

use crate::rig::{CALL, DISPATCH, KEY, Recorded, Rig};

fn dispatch_call() -> Rig {
    let mut rig = Rig::on(DISPATCH);
    rig.answer();
    rig.talk(3_000);
    rig.end();
    rig
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sealed_in(reports: &[SpoolReport]) -> Option<&recorder::Sealed> {
    reports.iter().find_map(|report| match report {
        SpoolReport::Event(Event::RecordingSealed(sealed)) => Some(&**sealed),
        _ => None,
    })
}

#[test]
fn a_recording_is_written_twice_and_reported_once_it_is_complete() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = SpoolWriter::new(first.path(), Some(second.path())).unwrap();
    let rig = dispatch_call();
    rig.outputs.iter().cloned().for_each(|output| writer.apply(output));
    let reports = writer.close();
    let sealed = sealed_in(&reports).unwrap();
    assert_eq!(sealed.file.parent(), Some(first.path()));
    for directory in [&first, &second] {
        let bytes = std::fs::read(directory.path().join(sealed.file.file_name().unwrap())).unwrap();
        assert_eq!(bytes, rig.files[&sealed.recording]);
        assert_eq!(names(directory.path()).len(), 1);
    }
    let mode = std::fs::metadata(&sealed.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Recorded::open(&std::fs::read(&sealed.file).unwrap()).duration_ms(), 3_000);
    release(&[first.path(), second.path()], sealed.recording).unwrap();
    assert!(names(first.path()).is_empty() && names(second.path()).is_empty());
    release(&[first.path(), second.path()], sealed.recording).unwrap();
}

#[test]
fn a_live_recording_is_not_recovered_and_a_dead_one_is() {
    let first = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::new(first.path(), None).unwrap();
    let mut rig = Rig::on(DISPATCH);
    rig.talk(2_000);
    rig.outputs.iter().cloned().for_each(|output| writer.apply(output));
    assert!(recover(first.path(), &|_, _| Some(KEY.into())).is_empty());
    assert!(names(first.path())[0].ends_with(".part"));
    drop(writer);
    let sealed = recover(first.path(), &|_, _| Some(KEY.into()));
    assert!(sealed[0].recovered && sealed[0].duration_s > 1.0);
}

#[test]
fn when_one_copy_fails_the_other_goes_on() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut writer = SpoolWriter::new(first.path(), Some(second.path())).unwrap();
    let rig = dispatch_call();
    // The name is taken: the first copy cannot be created.
    let recording = *rig.files.keys().next().unwrap();
    std::fs::create_dir(first.path().join(format!("{recording}.part"))).unwrap();
    rig.outputs.iter().cloned().for_each(|output| writer.apply(output));
    let reports = writer.close();
    let alarm = Event::CopyFailed { call: CALL, recording, second: false };
    assert!(reports.contains(&SpoolReport::Event(alarm)));
    let sealed = sealed_in(&reports).unwrap();
    assert_eq!(sealed.file.parent(), Some(second.path()));
    assert_eq!(std::fs::read(&sealed.file).unwrap(), rig.files[&recording]);
}

#[test]
fn when_no_copy_can_be_written_the_recording_fails_once_and_nothing_panics() {
    let first = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::new(first.path(), None).unwrap();
    let rig = dispatch_call();
    let recording = *rig.files.keys().next().unwrap();
    std::fs::create_dir(first.path().join(format!("{recording}.part"))).unwrap();
    rig.outputs.iter().cloned().for_each(|output| writer.apply(output));
    let reports = writer.close();
    let failed = SpoolReport::Failed { call: CALL, recording };
    assert_eq!(reports.iter().filter(|report| **report == failed).count(), 1);
    assert!(sealed_in(&reports).is_none());
}

#[test]
fn a_full_disk_fails_the_recording_and_keeps_what_was_written() {
    // Every write to /dev/full is refused for want of space.
    let first = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::new(first.path(), None).unwrap();
    let rig = dispatch_call();
    let recording = *rig.files.keys().next().unwrap();
    std::os::unix::fs::symlink("/dev/full", first.path().join(format!("{recording}.part"))).unwrap();
    rig.outputs.iter().cloned().for_each(|output| writer.apply(output));
    let reports = writer.close();
    assert!(reports.contains(&SpoolReport::Failed { call: CALL, recording }));
}

#[test]
fn a_recording_without_a_sample_leaves_no_file() {
    let first = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::new(first.path(), None).unwrap();
    let mut rig = Rig::on(DISPATCH);
    rig.talk(100);
    let create = rig.outputs.iter().find(|output| matches!(output, Output::Create { .. })).unwrap().clone();
    let recording = *rig.files.keys().next().unwrap();
    writer.apply(create);
    assert_eq!(names(first.path()).len(), 1);
    writer.apply(Output::Discard { recording });
    writer.close();
    assert!(names(first.path()).is_empty());
}
