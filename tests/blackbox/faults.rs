//! The call comes first: database locked, its disk full, a spool's disk full, the whole data directory full.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Site, eventually, number};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};

/// The alarm.
const DISPATCH_FAILURES: &str = "earmark_dispatch_recording_failures_total";

/// Somebody else's exclusive transaction on the database.
pub(crate) struct Lock {
    sqlite: Child,
    input: Option<ChildStdin>,
}

/// Takes the lock, from another process.
pub(crate) fn lock_database(database: &Path) -> Lock {
    let mut sqlite = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sqlite3 (Debian package sqlite3)");
    let mut input = sqlite.stdin.take().expect("a pipe");
    input.write_all(b".timeout 10000\nBEGIN EXCLUSIVE;\nSELECT 'locked';\n").expect("sqlite3 listens");
    let mut line = String::new();
    BufReader::new(sqlite.stdout.take().expect("a pipe")).read_line(&mut line).expect("sqlite3 answers");
    assert_eq!(line.trim(), "locked");
    Lock { sqlite, input: Some(input) }
}

impl Lock {
    pub(crate) fn release(mut self) {
        let mut input = self.input.take().expect("a lock that is held");
        input.write_all(b"ROLLBACK;\n").expect("sqlite3 listens");
        drop(input);
        assert!(self.sqlite.wait().expect("a child").success());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // After a release there is nothing left to kill.
        let _ = self.sqlite.kill();
        let _ = self.sqlite.wait();
    }
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason printed, where we may not mount.
    fn mount(at: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&at)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED: a full disk needs leave to mount a tmpfs (root)");
        None
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        for size in [65_536, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// A dispatch call of some seconds that must not notice anything.
fn undisturbed_call(site: &Site) {
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let began = Instant::now();
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    assert!(began.elapsed() < Duration::from_secs(1), "answered after {:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(6));
    for (call, base) in [(&incoming, LADDER_A_HZ), (&outgoing, LADDER_B_HZ)] {
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.breaks == 0 && heard.off <= 2 && heard.seconds() > 5.0, "{heard:?}");
    }
    outgoing.bye();
    incoming.ended();
}

fn recorded_whole(site: &Site) {
    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered", "{call}");
    assert_eq!(call["recording_outcome"], "recorded", "{call}");
    let recording = site.sealed_recording(&call);
    let found = sound::find_ladder(&site.export(&recording)[0], LADDER_A_HZ);
    assert!(found.seconds() > 5.0 && found.breaks == 0, "{found:?}");
    assert!(site.run(["recordings", "verify"]).status.success());
}

#[test]
fn a_locked_database_disturbs_no_call_and_the_record_appears_afterwards() {
    let site = Site::new();
    let mut gateway = site.start();
    let lock = lock_database(&site.database());
    undisturbed_call(&site);
    gateway.lives();
    eventually("a database that is missed", Duration::from_secs(15), || {
        let (status, readiness) = gateway.get("/readyz");
        assert_eq!(status, 200, "calls are taken: {readiness}");
        let words = ["\"degraded\":[\"database\"]", "the journal keeps what happens"];
        words.iter().all(|words| readiness.contains(words)).then_some(())
    });
    lock.release();
    recorded_whole(&site);
}

#[test]
fn a_full_disk_under_the_database_disturbs_no_call_and_the_record_appears_afterwards() {
    let site = Site::with(|site, text| {
        let usual = format!("sqlite:{}", site.database().display());
        text.replace(&usual, &format!("sqlite:{}/disk/earmark.db", site.folder().display()))
    });
    let Some(disk) = SmallDisk::mount(site.folder().join("disk"), 8) else { return };
    let mut gateway = site.start();
    disk.fill();
    undisturbed_call(&site);
    gateway.lives();
    disk.empty();
    recorded_whole(&site);
}

/// A site whose dispatch lines are written twice, and both folders.
fn site_with_second_writer() -> (Site, [PathBuf; 2]) {
    let site = Site::with(|site, text| {
        let second = site.folder().join("second");
        text.replace("key_file = ", &format!("second_writer = \"{}\"\nkey_file = ", second.display()))
    });
    let spools = [site.data().join("spool"), site.folder().join("second")];
    (site, spools)
}

/// Names of the recordings in a spool, without their endings, and their sizes.
fn spooled(spool: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(spool).expect("a spool").flatten();
    let recordings = entries.filter_map(|entry| {
        let path = entry.path();
        path.extension().filter(|ending| *ending == "part" || *ending == "sealed")?;
        Some((path.file_stem()?.to_string_lossy().into_owned(), entry.metadata().ok()?.len()))
    });
    recordings.collect()
}

/// Waits until one recording is in both spools, with `bytes` at least in each.
fn written_twice(spools: &[PathBuf; 2], bytes: u64) -> String {
    eventually("a recording in both spools", Duration::from_secs(10), || {
        let [first, second] = spools.each_ref().map(|spool| spooled(spool));
        let [(name, first_bytes)] = first.as_slice() else { return None };
        let [(other, second_bytes)] = second.as_slice() else { return None };
        (name == other && *first_bytes >= bytes && *second_bytes >= bytes).then(|| name.clone())
    })
}

/// Both copies are gone from the spools, and the recording is in the store.
fn stored_and_cleared(site: &Site, spools: &[PathBuf; 2], recording: &str) {
    assert_eq!(site.recordings()[0]["id"], recording);
    eventually("empty spools", Duration::from_secs(10), || {
        spools.iter().all(|spool| spooled(spool).is_empty()).then_some(())
    });
    assert!(site.run(["recordings", "verify", recording]).status.success());
}

#[test]
fn a_dispatch_call_is_written_twice_and_both_copies_go_once_it_is_stored() {
    let (site, spools) = site_with_second_writer();
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let recording = written_twice(&spools, 10_000);
    outgoing.bye();
    incoming.ended();
    site.sealed_recording(&site.closed_call());
    stored_and_cleared(&site, &spools, &recording);
    assert_eq!(gateway.figure(DISPATCH_FAILURES), 0);
}

#[test]
fn when_the_first_spool_is_full_the_second_has_the_whole_recording() {
    let (site, spools) = site_with_second_writer();
    let Some(disk) = SmallDisk::mount(spools[0].clone(), 1) else { return };
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let recording = written_twice(&spools, 10_000);
    disk.fill();
    gateway.counted(DISPATCH_FAILURES, 1);
    let left = spooled(&spools[0]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(spooled(&spools[0]), left, "the first copy was given up");
    for (call, base) in [(&incoming, LADDER_A_HZ), (&outgoing, LADDER_B_HZ)] {
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.breaks == 0 && heard.off <= 2, "{heard:?}");
    }
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();
    recorded_whole(&site);
    let length = number(&site.recordings()[0]["duration_s"]);
    assert!((length - lasted).abs() < 0.3, "{length} s of {lasted} s");
    stored_and_cleared(&site, &spools, &recording);
    assert_eq!(gateway.figure(DISPATCH_FAILURES), 1);
    assert_eq!(gateway.figure("earmark_recording_failures_total"), 0);
    gateway.lives();
}

#[test]
fn a_full_data_directory_disturbs_no_call() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.data(), 16) else { return };
    let mut gateway = site.start();
    disk.fill();
    undisturbed_call(&site);
    gateway.lives();
    disk.empty();
    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered", "one record, whatever the disk: {call}");
}
