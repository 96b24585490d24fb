//! The little of a file system that the journal needs, and the folder that provides it. The simulator
//! provides another one, with crashes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Ending of a journal file's name; before it stands its number in 10 digits.
const ENDING: &str = ".journal";

/// Numbered files that only grow, except for a torn tail that is cut.
pub trait Disk {
    /// Numbers of the files there are, ascending.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// Up to `max` bytes of file `number` from `offset` on; fewer only at its end.
    ///
    /// # Errors
    /// What the file system says.
    fn read(&self, number: u64, offset: u64, max: usize) -> io::Result<Vec<u8>>;

    /// Makes file `number`, which does not exist, holding `head`.
    ///
    /// # Errors
    /// What the file system says; then the file may exist, with a part of `head`.
    fn create(&mut self, number: u64, head: &[u8]) -> io::Result<()>;

    /// Appends to file `number` in one write.
    ///
    /// # Errors
    /// What the file system says; then any part of `bytes` may have been appended.
    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts file `number` to `length` bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()>;

    /// Returns when what was appended to file `number` is on the medium, and its name too.
    ///
    /// # Errors
    /// What the file system says; then nothing is known of what is on the medium.
    fn sync(&mut self, number: u64) -> io::Result<()>;

    /// Removes file `number`.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// A folder of a local disk.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The file last appended to, kept open.
    open: Option<(u64, File)>,
}

impl Folder {
    /// The folder at `path`, made if it is not there (mode 0700: entries hold numbers and names).
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self { path: path.to_owned(), open: None })
    }

    /// Another handle of file `number`, for syncing it elsewhere.
    ///
    /// # Errors
    /// What the file system says.
    pub fn handle(&self, number: u64) -> io::Result<File> {
        match &self.open {
            Some((open, file)) if *open == number => file.try_clone(),
            _ => File::open(self.path_of(number)),
        }
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:010}{ENDING}"))
    }

    fn appendable(&mut self, number: u64) -> io::Result<&mut File> {
        let file = match self.open.take() {
            Some((open, file)) if open == number => file,
            _ => OpenOptions::new().append(true).open(self.path_of(number))?,
        };
        Ok(&mut self.open.insert((number, file)).1)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number: Option<u64> =
                name.to_str().and_then(|name| name.strip_suffix(ENDING)).and_then(|n| n.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path_of(number))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, number: u64, head: &[u8]) -> io::Result<()> {
        let path = self.path_of(number);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(head)?;
        // Without this a power cut can take the file's name and all that was synced into it.
        self.sync_folder()?;
        self.open = Some((number, file));
        Ok(())
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.appendable(number)?.write_all(bytes)
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        self.appendable(number)?.set_len(length)
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        self.handle(number)?.sync_data()
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == number) {
            self.open = None;
        }
        fs::remove_file(self.path_of(number))
    }
}
