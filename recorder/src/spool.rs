//! The spool: a directory of sealed files, `<recording>.part` while they are written and `<recording>.sealed`
//! once they are complete (format: [`sealed`](crate::sealed)).
//!
//! A file is written with plain appends, so that what was written survives the end of the process; it is
//! synced after every second of audio, and before it is reported as sealed it is synced, renamed, and its
//! directory synced: a file renamed but not synced into its directory is lost at a power cut. Syncs run on a
//! thread of their own, because a disk can take seconds for one and frames do not wait. An open file is
//! locked (`flock`), so that [`recover`] leaves it alone.
//!
//! Dispatch recordings are written twice where a second directory is configured. A copy whose write or sync
//! fails is given up for good (a sync is never tried again and then trusted) and reported; the recording
//! fails when no copy is left. What a failed copy holds stays for recovery.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use consent::{CallId, RecordingId};

use crate::{Event, Output, Sealed};

pub use crate::recovery::{Unreadable, UnwrapKey, recover, recover_with};

/// Name of a file that is written.
pub(crate) const PART: &str = "part";
/// Name of a complete file.
pub(crate) const SEALED: &str = "sealed";
/// Syncs and seals in hand. When there are more, a sync is left to the next second, and a seal waits.
const JOBS: usize = 256;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A directory cannot be made or opened.
    #[error("the spool directory {} cannot be used", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that syncs cannot be started.
    #[error("the spool's sync thread cannot be started")]
    Thread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What became of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum SpoolReport {
    /// For the hub.
    Event(Event),
    /// No copy is left: tell the call's capture (`CaptureCommand::WriteFailed`), which tells the hub. If the
    /// capture is over already, the hub is to be told [`Event::RecordingFailed`] in its place.
    Failed {
        /// Which call.
        call: CallId,
        /// Which recording.
        recording: RecordingId,
    },
}

/// Carries out what captures say. Belongs to one writer thread.
#[derive(Debug)]
pub struct SpoolWriter {
    directories: Vec<PathBuf>,
    open: HashMap<RecordingId, Spooled>,
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    reports: VecDeque<SpoolReport>,
    syncer: Option<JoinHandle<()>>,
}

/// The copies of one recording.
#[derive(Debug)]
struct Spooled {
    call: CallId,
    copies: Vec<FileCopy>,
    bytes: u64,
    finishing: bool,
}

#[derive(Debug)]
struct FileCopy {
    file: Arc<File>,
    path: PathBuf,
    second: bool,
}

#[derive(Debug)]
enum Job {
    /// Make the file's name last.
    Name {
        recording: RecordingId,
        second: bool,
        path: PathBuf,
    },
    Sync {
        recording: RecordingId,
        second: bool,
        file: Arc<File>,
    },
    Finish {
        recording: RecordingId,
        copies: Vec<FileCopy>,
        sealed: Box<Sealed>,
    },
}

#[derive(Debug)]
enum Done {
    SyncFailed { recording: RecordingId, second: bool, error: io::Error },
    Finished { recording: RecordingId, sealed: Option<Box<Sealed>>, failed: Vec<(bool, io::Error)> },
}

impl SpoolWriter {
    /// A writer into `first`, and into `second` too for recordings that are written twice. Makes the
    /// directories if they are not there, for the owner alone.
    ///
    /// # Errors
    /// [`SpoolError`] if one cannot be made.
    pub fn new(first: &Path, second: Option<&Path>) -> Result<Self, SpoolError> {
        let directories: Vec<PathBuf> =
            [Some(first), second].into_iter().flatten().map(PathBuf::from).collect();
        for path in &directories {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| SpoolError::Directory { path: path.clone(), source })?;
        }
        let (jobs, queue) = sync_channel(JOBS);
        let (answers, done) = channel();
        let syncer = std::thread::Builder::new()
            .name("spool-sync".to_owned())
            .spawn(move || sync_files(&queue, &answers))
            .map_err(|source| SpoolError::Thread { source })?;
        Ok(Self {
            directories,
            open: HashMap::new(),
            jobs: Some(jobs),
            done,
            reports: VecDeque::new(),
            syncer: Some(syncer),
        })
    }

    /// Does what a capture says. It never waits for a sync; what comes of it is told by
    /// [`Self::poll_report`].
    pub fn apply(&mut self, output: Output) {
        match output {
            Output::Create { recording, call, twice, bytes } => self.create(recording, call, twice, &bytes),
            Output::Append { recording, bytes } => self.append(recording, &bytes),
            Output::Sync { recording } => self.sync(recording),
            Output::Finish { recording, sealed } => self.finish(recording, sealed),
            Output::Discard { recording } => self.discard(recording),
            Output::Event(event) => self.reports.push_back(SpoolReport::Event(event)),
        }
    }

    /// What came of earlier outputs.
    pub fn poll_report(&mut self) -> Option<SpoolReport> {
        while let Ok(done) = self.done.try_recv() {
            self.on_done(done);
        }
        self.reports.pop_front()
    }

    /// Waits until everything applied so far is done, and ends. Returns what is left to report.
    pub fn close(mut self) -> Vec<SpoolReport> {
        self.jobs = None;
        if let Some(syncer) = self.syncer.take()
            && syncer.join().is_err()
        {
            tracing::error!("the spool's sync thread panicked");
        }
        std::iter::from_fn(|| self.poll_report()).collect()
    }

    fn create(&mut self, recording: RecordingId, call: CallId, twice: bool, bytes: &[u8]) {
        let count = if twice { 2 } else { 1 };
        let mut spooled = Spooled { call, copies: Vec::with_capacity(count), bytes: 0, finishing: false };
        let mut failures = Vec::new();
        for (index, directory) in self.directories.iter().take(count).enumerate() {
            let path = directory.join(format!("{recording}.{PART}"));
            let second = index == 1;
            match create_locked(&path) {
                Ok(file) => spooled.copies.push(FileCopy { file: Arc::new(file), path, second }),
                Err(error) => failures.push((second, error)),
            }
        }
        for copy in &spooled.copies {
            let job = Job::Name { recording, second: copy.second, path: copy.path.clone() };
            if self.jobs.as_ref().is_none_or(|jobs| jobs.try_send(job).is_err()) {
                tracing::warn!(%call, %recording, "the disk is slow to sync");
            }
        }
        self.open.insert(recording, spooled);
        for (second, error) in failures {
            self.copy_failed(recording, second, &error);
        }
        self.append(recording, bytes);
    }

    fn append(&mut self, recording: RecordingId, bytes: &[u8]) {
        let Some(spooled) = self.open.get_mut(&recording) else { return };
        spooled.bytes += bytes.len() as u64;
        let write = |copy: &FileCopy| (&*copy.file).write_all(bytes).err().map(|error| (copy.second, error));
        let failed: Vec<_> = spooled.copies.iter().filter_map(write).collect();
        for (second, error) in failed {
            self.copy_failed(recording, second, &error);
        }
    }

    fn sync(&mut self, recording: RecordingId) {
        let (Some(spooled), Some(jobs)) = (self.open.get(&recording), &self.jobs) else { return };
        for copy in &spooled.copies {
            let job = Job::Sync { recording, second: copy.second, file: Arc::clone(&copy.file) };
            match jobs.try_send(job) {
                Ok(()) => {}
                // The disk is behind; the next second's sync covers this one.
                Err(TrySendError::Full(_)) => tracing::warn!(%recording, "the disk is slow to sync"),
                Err(TrySendError::Disconnected(_)) => tracing::error!("the spool's sync thread is gone"),
            }
        }
    }

    fn finish(&mut self, recording: RecordingId, mut sealed: Box<Sealed>) {
        let Some(spooled) = self.open.get_mut(&recording) else { return };
        let copies = std::mem::take(&mut spooled.copies);
        let Some(copy) = copies.first() else { return };
        spooled.finishing = true;
        sealed.file = copy.path.with_extension(SEALED);
        let job = Job::Finish { recording, copies, sealed };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            tracing::error!(%recording, "the spool's sync thread is gone; recovery will seal the recording");
        }
    }

    fn discard(&mut self, recording: RecordingId) {
        let Some(spooled) = self.open.remove(&recording) else { return };
        for copy in spooled.copies {
            if let Err(error) = std::fs::remove_file(&copy.path) {
                tracing::warn!(%recording, %error, "an empty recording cannot be removed");
            }
        }
    }

    fn copy_failed(&mut self, recording: RecordingId, second: bool, error: &io::Error) {
        let Some(spooled) = self.open.get_mut(&recording) else { return };
        let call = spooled.call;
        tracing::error!(%call, %recording, second, %error, "a copy of a recording cannot be written");
        spooled.copies.retain(|copy| copy.second != second);
        if spooled.copies.is_empty() && !spooled.finishing {
            self.open.remove(&recording);
            self.reports.push_back(SpoolReport::Failed { call, recording });
        } else {
            let event = Event::CopyFailed { call, recording, second };
            self.reports.push_back(SpoolReport::Event(event));
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::SyncFailed { recording, second, error } => self.copy_failed(recording, second, &error),
            Done::Finished { recording, sealed, failed } => {
                for (second, error) in &failed {
                    self.copy_failed(recording, *second, error);
                }
                let Some(spooled) = self.open.remove(&recording) else { return };
                self.reports.push_back(match sealed {
                    Some(sealed) => SpoolReport::Event(Event::RecordingSealed(sealed)),
                    None => SpoolReport::Failed { call: spooled.call, recording },
                });
            }
        }
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(syncer) = self.syncer.take() {
            // A panic there was reported when it happened; nothing is left to do about it.
            drop(syncer.join());
        }
    }
}

/// Removes every copy of a recording that the store has acknowledged. A copy that is not there is no error.
///
/// # Errors
/// The first that the system reports; the other copies are tried all the same.
pub fn release(directories: &[&Path], recording: RecordingId) -> io::Result<()> {
    let mut outcome = Ok(());
    for directory in directories {
        for extension in [SEALED, PART] {
            match std::fs::remove_file(directory.join(format!("{recording}.{extension}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = outcome.and(Err(error)),
                _ => {}
            }
        }
    }
    outcome
}

/// Makes the rename of a complete file last.
pub(crate) fn seal_file(file: &File, part: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(part, part.with_extension(SEALED))?;
    sync_directory(part)
}

/// Syncs the directory that `path` is in.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn create_locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    Ok(file)
}

fn sync_files(jobs: &Receiver<Job>, done: &Sender<Done>) {
    // A sync that failed may be followed by one that succeeds although pages were dropped in between.
    let mut distrusted: HashSet<(RecordingId, bool)> = HashSet::new();
    while let Ok(job) = jobs.recv() {
        let (recording, second, outcome) = match job {
            Job::Name { recording, second, path } => (recording, second, sync_directory(&path)),
            Job::Sync { recording, second, file } => (recording, second, file.sync_data()),
            Job::Finish { recording, copies, sealed } => {
                let finished = finish_copies(recording, &copies, sealed, &distrusted);
                distrusted.retain(|(of, _)| *of != recording);
                if done.send(finished).is_err() {
                    return;
                }
                continue;
            }
        };
        let Err(error) = outcome else { continue };
        distrusted.insert((recording, second));
        if done.send(Done::SyncFailed { recording, second, error }).is_err() {
            return;
        }
    }
}

fn finish_copies(
    recording: RecordingId,
    copies: &[FileCopy],
    mut sealed: Box<Sealed>,
    distrusted: &HashSet<(RecordingId, bool)>,
) -> Done {
    let (mut whole, mut failed) = (None, Vec::new());
    for copy in copies {
        if distrusted.contains(&(recording, copy.second)) {
            continue;
        }
        match seal_file(&copy.file, &copy.path) {
            Ok(()) => whole = whole.or_else(|| Some(copy.path.with_extension(SEALED))),
            Err(error) => failed.push((copy.second, error)),
        }
    }
    let sealed = whole.map(|file| {
        sealed.file = file;
        sealed
    });
    Done::Finished { recording, sealed, failed }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use consent::{RetentionTag, Wall};

    use super::*;
    use crate::sealed::{Header, Summary};

    fn sealed() -> Box<Sealed> {
        let header = Header {
            recording: RecordingId(1),
            call: CallId(2),
            wrapped_key: Vec::new(),
            retention: RetentionTag::try_from("RT-TEST".to_owned()).unwrap(),
            channels: Vec::new(),
            codec: "opus".to_owned(),
            opened_at: Wall(0),
            look_back: false,
        };
        let summary = Summary {
            started_at: Wall(0),
            duration_s: 1.0,
            intervals: Vec::new(),
            gaps: Vec::new(),
            recovered: false,
        };
        Box::new(Sealed::new(header, summary, 0, String::new()))
    }

    #[test]
    fn a_copy_whose_sync_failed_once_is_never_trusted_again() {
        let directory = tempfile::tempdir().unwrap();
        let recording = RecordingId(1);
        let path = directory.path().join(format!("{recording}.{PART}"));
        let file = Arc::new(create_locked(&path).unwrap());
        // The kernel refuses to sync a device.
        let device = Arc::new(File::open("/dev/null").unwrap());
        let (jobs, queue) = sync_channel(4);
        let (answers, done) = channel();
        jobs.send(Job::Sync { recording, second: false, file: device }).unwrap();
        let copies = vec![FileCopy { file, path: path.clone(), second: false }];
        jobs.send(Job::Finish { recording, copies, sealed: sealed() }).unwrap();
        drop(jobs);
        sync_files(&queue, &answers);
        assert!(matches!(done.recv().unwrap(), Done::SyncFailed { second: false, .. }));
        let Done::Finished { sealed: None, .. } = done.recv().unwrap() else { panic!("trusted") };
        assert!(path.exists(), "left for recovery");
    }
}
