//! The journal's disk: files in memory that know which of their bytes are on the medium.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use storage::journal::Disk;

use crate::random::Random;

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<u64, File>,
    failing: bool,
}

#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

/// A disk; clones are handles of the same one, which outlives the gateway's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk(Rc<RefCell<Files>>);

impl SimulatedDisk {
    /// From now on nothing can be written, or it can again.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.0.borrow_mut().failing = failing;
    }

    /// The power goes: of what was not synced, a part of any length stays.
    pub(crate) fn cut_power(&self, random: &mut Random) {
        for file in self.0.borrow_mut().files.values_mut() {
            let unsynced = (file.bytes.len() - file.synced) as u64;
            let kept = file.synced + random.between(0, unsynced) as usize;
            file.bytes.truncate(kept);
        }
    }

    fn write<T>(&self, number: u64, act: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let mut files = self.0.borrow_mut();
        if files.failing {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let file = files.files.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok(act(file))
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.borrow().files.keys().copied().collect())
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let files = self.0.borrow();
        let file = files.files.get(&number).ok_or(io::ErrorKind::NotFound)?;
        let from = (offset as usize).min(file.bytes.len());
        let to = (from + max).min(file.bytes.len());
        Ok(file.bytes[from..to].to_vec())
    }

    fn create(&mut self, number: u64, head: &[u8]) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        if files.failing {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        files.files.insert(number, File { bytes: head.to_vec(), synced: 0 });
        Ok(())
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(number, |file| file.bytes.extend_from_slice(bytes))
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        self.write(number, |file| {
            file.bytes.truncate(length as usize);
            file.synced = file.synced.min(file.bytes.len());
        })
    }

    fn sync(&mut self, number: u64) -> io::Result<()> {
        self.write(number, |file| file.synced = file.bytes.len())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.0.borrow_mut().files.remove(&number);
        Ok(())
    }
}
