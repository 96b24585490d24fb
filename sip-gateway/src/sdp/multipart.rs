//! Where the session description stands in a body (RFC 2046 §5.1, RFC 5621), so that it alone is replaced
//! and every other part, its headers and its Content-ID stay byte for byte (an emergency call carries its
//! caller's location beside the description, RFC 6442).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};

use crate::wire::MediaType;

use super::SdpError;

/// Parts of one multipart; beyond: refused. Emergency calls carry two to four.
const MAX_PARTS: usize = 32;

/// Multiparts within multiparts; beyond: refused. Two are seen.
const MAX_DEPTH: usize = 3;

/// The longest boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// Where the first `application/sdp` stands in a body of this Content-Type; `None` if there is none. A body whose
/// type cannot be read is one if it begins like one: Sofia-SIP reads it so.
///
/// # Errors
/// [`SdpError::Multipart`] if a multipart has no usable boundary, or too many or too deep parts.
pub fn locate(content_type: &str, body: &[u8]) -> Result<Option<Range<usize>>, SdpError> {
    locate_within(content_type, body, 0..body.len(), 0)
}

/// Whether a body of this Content-Type holds a description, or what may be one.
pub fn holds_description(content_type: &str, body: &[u8]) -> bool {
    !body.is_empty() && !matches!(locate(content_type, body), Ok(None))
}

/// The body with other octets in that place.
pub fn splice(body: &Bytes, place: Range<usize>, description: &[u8]) -> Bytes {
    let before = body.get(..place.start).unwrap_or_default();
    let after = body.get(place.end..).unwrap_or_default();
    let mut out = BytesMut::with_capacity(before.len() + description.len() + after.len());
    out.extend_from_slice(before);
    out.extend_from_slice(description);
    out.extend_from_slice(after);
    out.freeze()
}

fn locate_within(
    content_type: &str,
    body: &[u8],
    place: Range<usize>,
    depth: usize,
) -> Result<Option<Range<usize>>, SdpError> {
    let Some((kind, subtype)) = MediaType::leading(content_type) else {
        let begins = depth == 0 && body.trim_ascii_start().starts_with(b"v=0");
        return Ok(begins.then_some(place));
    };
    if kind.eq_ignore_ascii_case("application") && subtype.eq_ignore_ascii_case("sdp") {
        return Ok(Some(place));
    }
    if !kind.eq_ignore_ascii_case("multipart") {
        return Ok(None);
    }
    let Ok(media_type) = MediaType::parse(content_type) else { return Err(SdpError::Multipart) };
    let boundary = media_type.params.get("boundary").unwrap_or_default().trim_matches('"');
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES || depth >= MAX_DEPTH {
        return Err(SdpError::Multipart);
    }
    for part in parts(body, place, boundary)? {
        let octets = body.get(part.clone()).unwrap_or_default();
        let (content_type, content) = part_head(octets);
        let content = part.start + content..part.end;
        if let Some(found) = locate_within(&content_type, body, content, depth + 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The parts between delimiter lines, headers included, without the line break that belongs to the next
/// delimiter. Without a closing delimiter the last part goes to the end.
fn parts(body: &[u8], place: Range<usize>, boundary: &str) -> Result<Vec<Range<usize>>, SdpError> {
    let within = body.get(place.clone()).unwrap_or_default();
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut open: Option<usize> = None;
    for at in memmem::find_iter(within, delimiter.as_bytes()) {
        let at_line_start = at == 0 || within.get(at - 1) == Some(&b'\n');
        let rest = within.get(at + delimiter.len()..).unwrap_or_default();
        let Some(line) = Delimiter::read(rest).filter(|_| at_line_start) else { continue };
        if let Some(start) = open {
            parts.push(place.start + start..place.start + end_of_part(within, start, at));
        }
        open = match line {
            Delimiter::Open { line_bytes } => Some(at + delimiter.len() + line_bytes),
            Delimiter::Close => None,
        };
        if open.is_none() {
            break;
        }
        if parts.len() > MAX_PARTS {
            return Err(SdpError::Multipart);
        }
    }
    if let Some(start) = open {
        parts.push(place.start + start..place.end);
    }
    Ok(parts)
}

/// What follows the boundary on its line.
enum Delimiter {
    Open { line_bytes: usize },
    Close,
}

impl Delimiter {
    fn read(rest: &[u8]) -> Option<Self> {
        if rest.starts_with(b"--") {
            return Some(Self::Close);
        }
        let end = memchr(b'\n', rest)?;
        let blank = rest.get(..end)?.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        blank.then_some(Self::Open { line_bytes: end + 1 })
    }
}

fn end_of_part(within: &[u8], start: usize, delimiter: usize) -> usize {
    let part = within.get(start..delimiter).unwrap_or_default();
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    start + part.strip_suffix(b"\r").unwrap_or(part).len()
}

/// The Content-Type of a part (`text/plain` if it has none) and where its content begins: after the blank line, without
/// which there is none (RFC 2046 §5.1).
fn part_head(part: &[u8]) -> (String, usize) {
    let mut content_type = String::new();
    let mut in_content_type = false;
    let mut at = 0;
    while let Some(end) = memchr(b'\n', part.get(at..).unwrap_or_default()) {
        let line = part.get(at..at + end).unwrap_or_default();
        at += end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return (content_type_or_text(content_type), at);
        }
        let text = String::from_utf8_lossy(line);
        if text.starts_with([' ', '\t']) {
            if in_content_type {
                content_type.push_str(&text);
            }
            continue;
        }
        let (name, value) = text.split_once(':').unwrap_or_default();
        in_content_type = name.trim().eq_ignore_ascii_case("Content-Type") || name.trim() == "c";
        if in_content_type {
            value.trim().clone_into(&mut content_type);
        }
    }
    (content_type_or_text(content_type), part.len())
}

fn content_type_or_text(content_type: String) -> String {
    if content_type.is_empty() { "text/plain".to_owned() } else { content_type }
}
