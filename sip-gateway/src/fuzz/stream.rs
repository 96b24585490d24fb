//! Streams in segments of any size (RFC 3261 §18.3).

use crate::Limits;
use crate::wire::{Frame, Framer};

use super::datagram::survives;

/// Small enough that a short input goes beyond them.
const LIMITS: Limits =
    Limits { max_calls: 1, max_message_bytes: 1_024, max_headers: 16, max_streams: 1, requests_per_s: None };

/// An octet that says how to cut, and a stream.
pub fn stream(octets: &[u8]) {
    let Some((&seed, octets)) = octets.split_first() else { return };
    let (whole, inside) = read(octets, std::iter::repeat(octets.len()));
    assert_eq!(read(octets, std::iter::repeat(1)), (whole.clone(), inside));
    assert_eq!(read(octets, lengths(seed)), (whole.clone(), inside));
    for frame in &whole {
        if let Frame::Message(message) = frame {
            survives(message);
        }
    }
    let broken = whole.iter().position(|frame| matches!(frame, Frame::Broken(_)));
    assert!(broken.is_none_or(|at| at + 1 == whole.len()), "nothing comes after a broken frame");
}

/// What segments of these lengths hold, and whether a message was left without its end.
fn read(octets: &[u8], lengths: impl Iterator<Item = usize>) -> (Vec<Frame>, bool) {
    let mut framer = Framer::new(&LIMITS);
    let mut frames = Vec::new();
    let mut rest = octets;
    for length in lengths {
        let (segment, left) = rest.split_at(length.min(rest.len()));
        framer.feed(segment);
        frames.extend(std::iter::from_fn(|| framer.next_frame()));
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    (frames, framer.is_inside())
}

/// Segments of 1 to 61 octets.
fn lengths(seed: u8) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        1 + (state >> 16) as usize % 61
    })
}
