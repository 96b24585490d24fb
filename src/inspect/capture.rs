//! A capture file, classic pcap or pcapng, one packet at a time.
//!
//! What cannot be read further ends the reading with a remark: what came before it counts.

use std::io::Read;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The longest record that is taken for one; longer ones are damage. Sixteen times the longest packet.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// What the reader begins with.
const BUFFER_BYTES: usize = 1 << 16;

/// One captured packet.
pub(super) struct Frame<'a> {
    /// µs since 1970, UTC.
    pub(super) at_us: i64,
    /// What it begins with (tcpdump.org's link-layer header types).
    pub(super) link: Linktype,
    pub(super) bytes: &'a [u8],
}

/// How the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    /// In the middle of a record.
    CutShort,
    /// Something in it is no record.
    Damaged,
}

/// Why nothing of a file can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// Neither format begins so.
    #[error("it is no capture: neither pcap nor pcapng begins as it does")]
    NotACapture,
    /// It does not begin at all.
    #[error("it is empty")]
    Empty,
    /// The file system failed.
    #[error("it cannot be read")]
    Unreadable,
}

/// An interface of a pcapng section: link type, ticks in a second, offset in seconds.
type Interface = (Linktype, u64, i64);

/// Reads a capture to its end, or as far as it goes.
pub(super) fn read(
    source: impl Read + Send,
    mut each: impl FnMut(Frame<'_>),
) -> Result<Ending, CaptureError> {
    let mut reader = create_reader(BUFFER_BYTES, source).map_err(|error| match error {
        PcapError::Eof => CaptureError::Empty,
        PcapError::ReadError => CaptureError::Unreadable,
        _ => CaptureError::NotACapture,
    })?;
    let mut section = Section::default();
    let mut capacity = BUFFER_BYTES;
    loop {
        let step = match reader.next() {
            Ok((length, block)) => {
                if let Some(frame) = section.take(&block) {
                    each(frame);
                }
                Step::Consume(length)
            }
            Err(error) => Step::of(&error),
        };
        match step {
            Step::Consume(length) => reader.consume(length),
            Step::Refill => refill(reader.as_mut())?,
            Step::Grow if capacity < MAX_RECORD_BYTES => {
                capacity *= 2;
                reader.grow(capacity);
                refill(reader.as_mut())?;
            }
            Step::Grow => return Ok(Ending::Damaged),
            Step::End(ending) => return Ok(ending),
        }
    }
}

enum Step {
    Consume(usize),
    Refill,
    Grow,
    End(Ending),
}

impl Step {
    fn of(error: &PcapError<&[u8]>) -> Self {
        match error {
            PcapError::Eof => Self::End(Ending::Whole),
            PcapError::UnexpectedEof => Self::End(Ending::CutShort),
            PcapError::Incomplete(_) => Self::Refill,
            PcapError::BufferTooSmall => Self::Grow,
            PcapError::ReadError
            | PcapError::HeaderNotRecognized
            | PcapError::NomError(..)
            | PcapError::OwnedNomError(..) => Self::End(Ending::Damaged),
        }
    }
}

fn refill(reader: &mut dyn PcapReaderIterator) -> Result<(), CaptureError> {
    reader.refill().map_err(|_| CaptureError::Unreadable)
}

/// What the packets of a file are read by.
#[derive(Default)]
struct Section {
    classic: Option<(Linktype, bool)>,
    interfaces: Vec<Interface>,
}

impl Section {
    fn take<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Option<Frame<'a>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.classic = Some((header.network, header.is_nanosecond_precision()));
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let (link, nanoseconds) = self.classic?;
                let fraction = i64::from(packet.ts_usec);
                let us = if nanoseconds { fraction / 1_000 } else { fraction };
                Some(Frame { at_us: i64::from(packet.ts_sec) * 1_000_000 + us, link, bytes: packet.data })
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let ticks = interface.ts_resolution().unwrap_or(1_000_000).max(1);
                self.interfaces.push((interface.linktype, ticks, interface.ts_offset()));
                None
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let (link, ticks, offset_s) = *self.interfaces.get(packet.if_id as usize)?;
                let stamp = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
                let us = i64::try_from(stamp * 1_000_000 / u128::from(ticks)).unwrap_or(i64::MAX);
                let at_us = us.saturating_add(offset_s.saturating_mul(1_000_000));
                Some(Frame { at_us, link, bytes: packet.data.get(..packet.caplen as usize)? })
            }
            PcapBlockOwned::NG(_) => None,
        }
    }
}
