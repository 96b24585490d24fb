//! The SIP codec (RFC 3261 §7, §18.3, §25; RFC 4475; RFC 5118): bytes to messages and back.
//!
//! rsip gives the data types (`Headers`, `Header`, `Method`); its parser, typed headers, URI, printing and
//! digest never touch the wire. Everything runs in linear time and within [`Limits`](crate::Limits); what
//! is not changed goes out as it came in. Fields are read by the parsers of this module from `&str` to
//! structs of `&str`.
//!
//! Left out: authentication fields (`digest` reads them), and whatever the transaction user has to judge: unknown schemes,
//! methods and extensions are accepted here.

mod error;
mod fields;
mod framer;
mod grammar;
mod headers;
mod message;
mod method;
mod name_addr;
mod parse;
#[cfg(test)]
mod tests;
mod uri;
mod via;

pub use error::{Fault, Malformed, ParseError};
pub use fields::{CSeq, MediaType, Reason, SessionExpires, content_length, delta_seconds, max_forwards};
pub use framer::{Frame, Framer};
pub use grammar::{Param, Params};
pub(crate) use grammar::{quoted_end, split_list, trim, unquoted};
pub use headers::{Field, Headers, name};
pub use message::{Message, Request, Response, reason_phrase};
pub use method::Method;
pub use name_addr::NameAddr;
pub use parse::parse_datagram;
pub use uri::{SipUri, TelUri, Uri, before_params, decoded, user_params};
pub use via::{Via, stamp_source};
