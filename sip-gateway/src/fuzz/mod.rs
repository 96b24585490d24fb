//! What octets of any kind may not do to the readers and writers of this crate (RFC 3261 §7, §18.3, §22;
//! RFC 4475; RFC 8866): the bodies of the targets in `fuzz/`, which the tests run over the same corpora.
//!
//! | target | takes | holds |
//! |---|---|---|
//! | [`datagram`] | a datagram | what is accepted is written so that it reads the same; what passes to the other leg is UTF-8 without control characters; no field has a second line |
//! | [`stream`] | an octet, then a stream | the same frames, however it is cut into segments (the first octet says how) |
//! | [`description`] | a session description, or a Content-Type line and a body | ours has as many streams, and no address but ours |
//! | [`digest`] | the value of an authentication field | read, written and read it is the same; what answers it is one field |

mod datagram;
mod description;
mod digest;
mod stream;
#[cfg(test)]
mod tests;

pub use self::datagram::datagram;
pub use self::description::description;
pub use self::digest::digest;
pub use self::stream::stream;
