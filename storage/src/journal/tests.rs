#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::samples;

/// A disk in memory that fails when told to and forgets at a power cut what was not synced.
#[derive(Clone, Debug, Default)]
struct Faulty {
    files: BTreeMap<u64, Vec<u8>>,
    safe: BTreeMap<u64, Vec<u8>>,
    /// Bytes that the next append still takes before the disk is full.
    room: Option<usize>,
    sync_fails: bool,
    truncate_fails: bool,
}

impl Faulty {
    /// What is there after a power cut: what was synced, and of the rest any prefix.
    fn cut_power(&mut self, kept: usize) {
        for (number, bytes) in &mut self.files {
            let safe = self.safe.get(number).map_or(0, Vec::len);
            bytes.truncate(safe.max(kept.min(bytes.len())));
        }
    }
}

impl Disk for Faulty {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.files.keys().copied().collect())
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(&number).ok_or(io::ErrorKind::NotFound)?;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        Ok(rest[..max.min(rest.len())].to_vec())
    }

    fn create(&mut self, number: u64, head: &[u8]) -> io::Result<()> {
        assert!(self.files.insert(number, Vec::new()).is_none(), "a file number was used twice");
        self.append(number, head)
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let taken = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if let Some(room) = &mut self.room {
            *room -= taken;
        }
        self.files.get_mut(&number).unwrap().extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        if self.truncate_fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.files.get_mut(&number).unwrap().truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        if self.sync_fails {
            return Err(io::ErrorKind::Other.into());
        }
        self.safe.insert(number, self.files[&number].clone());
        Ok(())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.files.remove(&number);
        Ok(())
    }
}

const ID: JournalId = JournalId(7);

fn open(disk: Faulty) -> (Writer<Faulty>, Survey) {
    Writer::open(disk, ID, |_| {}).unwrap()
}

fn entry_of(n: u64) -> Stamped {
    Stamped { at: Wall(n as i64), entry: Entry::CallRinging { call: samples::call(u128::from(n)) } }
}

fn bytes_of(n: u64) -> Vec<u8> {
    payload(&entry_of(n)).unwrap()
}

fn append(writer: &mut Writer<Faulty>, n: u64) -> io::Result<Range> {
    let bytes = bytes_of(n);
    writer.append([bytes.as_slice()])
}

type Range = std::ops::Range<u64>;

fn read_all(disk: &Faulty) -> Vec<Found> {
    let mut reader = Reader::new();
    let mut all = Vec::new();
    loop {
        let found = reader.read(disk, u64::MAX, 3).unwrap();
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

/// The instants of the entries read; a loss panics.
fn entries(disk: &Faulty) -> Vec<i64> {
    let found = read_all(disk).into_iter();
    found
        .map(|found| match found {
            Found::Entry { stamped, .. } => stamped.at.0,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_is_appended_is_read_in_order_and_numbered_from_one_across_restarts() {
    let (mut writer, survey) = open(Faulty::default());
    assert_eq!(survey, Survey::default());
    assert_eq!(append(&mut writer, 1).unwrap(), 1..2);
    let (two, three) = (bytes_of(2), bytes_of(3));
    assert_eq!(writer.append([two.as_slice(), three.as_slice()]).unwrap(), 2..4);
    writer.sync().unwrap();
    let (mut writer, survey) = open(writer.disk().clone());
    assert_eq!((survey.last_seq, survey.torn_bytes, survey.journal), (3, 0, Some(ID)));
    assert_eq!(append(&mut writer, 4).unwrap(), 4..5);
    assert_eq!(entries(writer.disk()), [1, 2, 3, 4]);
}

#[test]
fn nothing_beyond_what_is_synced_is_given_out() {
    let (mut writer, _) = open(Faulty::default());
    append(&mut writer, 1).unwrap();
    writer.sync().unwrap();
    append(&mut writer, 2).unwrap();
    let mut reader = Reader::new();
    assert_eq!(reader.read(writer.disk(), writer.synced(), 9).unwrap().len(), 1);
    assert_eq!(reader.read(writer.disk(), writer.synced(), 9).unwrap().len(), 0);
    writer.sync().unwrap();
    assert_eq!(reader.read(writer.disk(), writer.synced(), 9).unwrap().len(), 1);
}

#[test]
fn a_full_disk_takes_nothing_in_part_and_all_of_it_afterwards() {
    for room in 0..200 {
        let (mut writer, _) = open(Faulty { room: Some(room), ..Faulty::default() });
        let mut written = 0;
        while written < 5 && append(&mut writer, written + 1).is_ok() {
            written += 1;
        }
        writer.disk_mut().room = None;
        for n in written + 1..=5 {
            assert_eq!(append(&mut writer, n).unwrap(), n..n + 1);
        }
        assert_eq!(entries(writer.disk()), [1, 2, 3, 4, 5]);
        writer.sync().unwrap();
    }
}

#[test]
fn a_torn_write_that_cannot_be_cut_is_left_behind_in_its_file() {
    for room in FILE_HEADER_BYTES + 1..FILE_HEADER_BYTES + bytes_of(1).len() + RECORD_HEADER_BYTES {
        let (mut writer, _) = open(Faulty { room: Some(room), truncate_fails: true, ..Faulty::default() });
        append(&mut writer, 1).unwrap_err();
        writer.disk_mut().room = None;
        append(&mut writer, 1).unwrap();
        append(&mut writer, 2).unwrap();
        assert_eq!(entries(writer.disk()), [1, 2]);
        assert_eq!(writer.disk().files.len(), 2);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_called_safe_that_was_not_written_again() {
    let (mut writer, _) = open(Faulty::default());
    append(&mut writer, 1).unwrap();
    writer.sync().unwrap();
    append(&mut writer, 2).unwrap();
    writer.disk_mut().sync_fails = true;
    writer.sync().unwrap_err();
    assert_eq!(writer.synced(), 1);
    append(&mut writer, 3).unwrap();
    writer.disk_mut().sync_fails = false;
    writer.sync().unwrap();
    assert_eq!(writer.synced(), 3);
    assert_eq!(entries(writer.disk()), [1, 2, 3], "the copies in the file that was given up are passed over");
    writer.disk_mut().cut_power(0);
    assert_eq!(entries(writer.disk()), [1, 2, 3]);
}

#[test]
fn a_sync_that_was_under_way_during_a_rotation_says_nothing_of_the_new_file() {
    let (mut writer, _) = open(Faulty::default());
    append(&mut writer, 1).unwrap();
    let ticket = writer.begin_sync().unwrap();
    append(&mut writer, 2).unwrap();
    writer.end_sync(ticket, &Ok(()));
    assert_eq!(writer.synced(), 1, "the second came after the sync began");
}

#[test]
fn what_waits_too_long_for_its_sync_is_let_go_and_counted_and_stays_in_the_file() {
    let (mut writer, _) = open(Faulty::default());
    let long = vec![b'x'; MAX_PAYLOAD_BYTES];
    let count = 20;
    for _ in 0..count {
        writer.append([long.as_slice()]).unwrap();
    }
    // 64 MiB are kept: fifteen records of 4 MiB and their heads.
    assert_eq!(writer.unguarded(), count - 15);
    assert_eq!((writer.written(), writer.synced()), (count, 0));
    writer.sync().unwrap();
    assert_eq!((writer.synced(), writer.unguarded()), (count, count - 15));
    assert_eq!(read_all(writer.disk()).len(), count as usize);
}

#[test]
fn a_full_file_is_followed_by_another_and_a_delivered_one_is_removed() {
    let (mut writer, _) = open(Faulty::default());
    let long = Stamped {
        at: Wall(1),
        entry: Entry::Audit {
            actor: "x".repeat(MAX_PAYLOAD_BYTES - 200),
            action: String::new(),
            object: None,
            detail: None,
        },
    };
    let bytes = payload(&long).unwrap();
    for _ in 0..9 {
        writer.append([bytes.as_slice()]).unwrap();
    }
    assert_eq!(writer.disk().files.len(), 2);
    assert_eq!(read_all(writer.disk()).len(), 9);
    let second = FileHeader::decode(&writer.disk().files[&2]).unwrap().first_seq;
    assert_eq!(writer.prune(9).unwrap(), 0, "what is not synced is never removed");
    writer.sync().unwrap();
    assert_eq!(writer.prune(second - 1).unwrap(), 0);
    assert_eq!(writer.prune(second).unwrap(), 1);
    assert_eq!(writer.prune(100).unwrap(), 0, "the file that is written to stays");
    let (writer, survey) = open(writer.disk().clone());
    assert_eq!((survey.last_seq, survey.lost.len()), (9, 0));
    assert_eq!(writer.written(), 9);
}

#[test]
fn a_damaged_middle_is_reported_by_number_and_the_rest_is_read() {
    let (mut writer, _) = open(Faulty::default());
    for n in 1..=5 {
        append(&mut writer, n).unwrap();
    }
    writer.sync().unwrap();
    let mut disk = writer.disk().clone();
    let record = RECORD_HEADER_BYTES + bytes_of(1).len();
    disk.files.get_mut(&1).unwrap()[FILE_HEADER_BYTES + 2 * record + 20] ^= 4;
    let found = read_all(&disk);
    assert_eq!(found[2], Found::Lost { journal: ID, from_seq: 3, to_seq: 3, file: 1 });
    assert_eq!(found.len(), 5);
    let (mut writer, survey) = open(disk);
    assert_eq!((survey.lost, survey.last_seq, survey.torn_bytes), (vec![(3, 3)], 5, 0));
    assert_eq!(append(&mut writer, 6).unwrap(), 6..7);
}

#[test]
fn a_payload_of_a_later_version_is_given_out_as_it_stands() {
    let (mut writer, _) = open(Faulty::default());
    writer.append([br#"{"at":1,"entry":{"kind":"not-yet-invented"}}"#.as_slice()]).unwrap();
    let found = read_all(writer.disk());
    assert!(
        matches!(&found[..], [Found::Unreadable { position, payload }] if position.seq == 1 && payload.contains("invented"))
    );
}

proptest! {
    /// Whatever the crash leaves, every synced entry is read, in order, without a loss reported; then
    /// the journal goes on.
    #[test]
    fn a_power_cut_costs_only_what_was_not_synced(appended in 1u64..12, synced in 0u64..12, kept in 0usize..2000) {
        let synced = synced.min(appended);
        let (mut writer, _) = open(Faulty::default());
        for n in 1..=appended {
            append(&mut writer, n).unwrap();
            if n == synced {
                writer.sync().unwrap();
            }
        }
        let mut disk = writer.disk().clone();
        disk.cut_power(kept);
        let (mut writer, survey) = open(disk);
        prop_assert!(survey.last_seq >= synced);
        prop_assert!(survey.lost.is_empty());
        append(&mut writer, survey.last_seq + 1).unwrap();
        let expected: Vec<i64> = (1..=survey.last_seq as i64 + 1).collect();
        prop_assert_eq!(entries(writer.disk()), expected);
    }

    /// Any sequence of full disks, failed cuts, failed syncs and power cuts: what was called synced is
    /// read, once and in order.
    #[test]
    fn what_was_called_synced_is_never_lost_or_doubled(steps in prop::collection::vec((0u8..6, 0usize..400), 1..60)) {
        let (mut writer, _) = open(Faulty::default());
        let (mut promised, mut lost) = (0, std::collections::BTreeSet::new());
        for (step, argument) in steps {
            match step {
                0 | 1 => { let next = writer.written() + 1; let _refused = append(&mut writer, next); }
                2 => { let _failed = writer.sync(); }
                3 => writer.disk_mut().room = (argument > 100).then_some(argument).filter(|_| argument < 300),
                4 => {
                    writer.disk_mut().sync_fails = argument % 2 == 1;
                    writer.disk_mut().truncate_fails = argument % 4 > 1;
                }
                _ => {
                    let mut disk = writer.disk().clone();
                    (disk.room, disk.sync_fails, disk.truncate_fails) = (None, false, false);
                    disk.cut_power(argument);
                    writer = open(disk).0;
                }
            }
            let mut next = 1;
            for found in read_all(writer.disk()) {
                let to = found.position().seq;
                if let Found::Lost { from_seq, to_seq, .. } = found {
                    prop_assert_eq!(from_seq, next);
                    // A file that was given up may lose what a later file keeps; but nothing promised.
                    prop_assert!((from_seq..=to_seq).all(|seq| seq > promised || lost.contains(&seq)));
                    lost.extend(from_seq..=to_seq);
                } else {
                    prop_assert_eq!(to, next);
                }
                next = to + 1;
            }
            prop_assert!(next > promised);
            promised = promised.max(writer.synced());
        }
    }
}

/// Waits for a receipt on this thread.
fn wait(receipt: Receipt) -> Result<JournalPosition, AppendError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(receipt)
}

#[test]
fn a_running_journal_writes_in_order_and_is_read_after_it_closed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(dir.path()).unwrap();
    assert!(matches!(Journal::start(dir.path()).unwrap_err(), JournalError::InUse { .. }));
    let receipts: Vec<_> = (1..=500).map(|n| journal.append(&entry_of(n))).collect();
    for (n, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(wait(receipt).unwrap(), JournalPosition { journal: journal.id(), seq: n as u64 + 1 });
    }
    assert_eq!(journal.health().written, 500);
    journal.close(Duration::from_secs(60)).unwrap();
    let disk = Folder::open(dir.path()).unwrap();
    let mut seen = Vec::new();
    survey(&disk, |found| seen.push(found.position().seq)).unwrap();
    assert_eq!(seen, (1..=500).collect::<Vec<_>>());
}

#[test]
fn what_one_process_left_open_the_next_ends_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::start(dir.path()).unwrap();
    let recorded = samples::dispatch_call(1);
    for stamped in recorded.iter().take(6).chain(&samples::consent_call(1)[..0]) {
        first.append(stamped);
    }
    for stamped in &samples::dispatch_call(2) {
        first.append(stamped);
    }
    first.close(Duration::from_secs(60)).unwrap();

    let second = Journal::start(dir.path()).unwrap();
    let stored = recorded[7].clone();
    assert!(matches!(stored.entry, Entry::RecordingStored(_)));
    assert_eq!(second.recover(Wall(samples::START.0 + 60_000_000), &[stored]).len(), 3);
    assert!(second.recover(Wall(samples::START.0 + 70_000_000), &[]).is_empty());
    second.close(Duration::from_secs(60)).unwrap();

    let third = Journal::start(dir.path()).unwrap();
    assert!(third.recover(Wall(samples::START.0 + 80_000_000), &[]).is_empty(), "ended is ended");
    third.close(Duration::from_secs(60)).unwrap();

    let mut calls = Calls::default();
    survey(&Folder::open(dir.path()).unwrap(), |found| {
        if let Found::Entry { stamped, .. } = found {
            calls.apply(&stamped).unwrap();
        }
    })
    .unwrap();
    let (at, end) = calls.get(samples::call(1)).unwrap().ended.clone().unwrap();
    assert_eq!(end.recording_outcome, consent::RecordingOutcome::PartlyRecorded);
    assert_eq!(at, Wall(samples::START.0 + 5_200_000), "the process's last sign of life");
}

#[test]
fn an_entry_too_long_for_a_record_is_refused_at_once_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(dir.path()).unwrap();
    let entry = Entry::Audit {
        actor: "x".repeat(MAX_PAYLOAD_BYTES),
        action: String::new(),
        object: None,
        detail: None,
    };
    let receipt = journal.append(&Stamped { at: Wall(1), entry });
    assert!(matches!(receipt.refusal(), Some(AppendError::Payload { .. })));
    assert!(matches!(wait(receipt).unwrap_err(), AppendError::Payload { .. }));
    assert_eq!(journal.health().refused, 1);
    assert!(wait(journal.append(&entry_of(1))).is_ok());
}

#[test]
fn a_ladder_gives_way_long_before_the_queue_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    let journal = Journal::start(&folder).unwrap();
    let ladder = samples::at(0, samples::ladder(1, &[samples::rung(0, "INVITE sip:<callee>", 0)], 0));
    let at_rest = Journal::start(&dir.path().join("at rest")).unwrap();
    let many: Vec<_> = (0..MAX_QUEUED_BESIDE_LADDERS as u64).map(entry_of).chain([ladder.clone()]).collect();
    let receipts = at_rest.append_all(&many, true);
    assert!(receipts.into_iter().all(|receipt| wait(receipt).is_ok()), "many at once are no disk in trouble");
    // No file can be made in a folder that is gone.
    std::fs::remove_dir_all(&folder).unwrap();
    let waiting: Vec<_> =
        (0..MAX_QUEUED_BESIDE_LADDERS as u64).map(|n| journal.append(&entry_of(n))).collect();
    assert!(matches!(journal.append(&ladder).refusal(), Some(AppendError::Shed)));
    assert!(journal.append(&entry_of(0)).refusal().is_none(), "records are taken");
    assert_eq!(journal.health().refused, 0, "no record was");
    drop(waiting);
}

#[test]
fn a_disk_that_does_not_write_for_a_while_has_everything_afterwards_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    let journal = Journal::start(&folder).unwrap();
    // No file can be made in a folder that is gone.
    std::fs::remove_dir_all(&folder).unwrap();
    let receipts: Vec<_> = (1..=MAX_QUEUED as u64).map(|n| journal.append(&entry_of(n))).collect();
    assert!(matches!(journal.append(&entry_of(0)).refusal(), Some(AppendError::Full)));
    let health = journal.health();
    assert_eq!((health.queued, health.refused, health.written), (MAX_QUEUED, 1, 0));

    std::fs::create_dir(&folder).unwrap();
    for (n, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(wait(receipt).unwrap().seq, n as u64 + 1);
    }
    assert!(journal.health().write_failures > 0);
    journal.close(Duration::from_secs(60)).unwrap();
    assert!(!journal.health().failing);
    let mut instants = Vec::new();
    survey(&Folder::open(&folder).unwrap(), |found| match found {
        Found::Entry { stamped, .. } => instants.push(stamped.at.0),
        other => panic!("{other:?}"),
    })
    .unwrap();
    assert_eq!(instants, (1..=MAX_QUEUED as i64).collect::<Vec<_>>());
}

/// In which folder the process to be killed writes.
const VICTIM: &str = "EARMARK_TEST_VICTIM";

#[test]
#[ignore = "the process that the next test starts and kills"]
fn victim() {
    let Ok(folder) = std::env::var(VICTIM) else { return };
    let journal = Journal::start(Path::new(&folder)).unwrap();
    for n in 1.. {
        let position = wait(journal.append(&entry_of(n))).unwrap();
        writeln!(io::stderr(), "written {}", position.seq).unwrap();
    }
}

#[test]
fn what_was_written_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = 0;
    for _ in 0..3 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::victim", "--ignored", "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(victim.stderr.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 200 {
            let line = lines.next().unwrap().unwrap();
            if let Some(seq) = line.strip_prefix("written ") {
                promised = seq.parse().unwrap();
                seen += 1;
            }
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let found = survey(&Folder::open(dir.path()).unwrap(), |_| {}).unwrap();
        assert!(found.last_seq >= promised && found.lost.is_empty());
    }
}
