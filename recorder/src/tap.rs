//! The only door from a packet to a file.
//!
//! Everything that ends up in a recording goes through the timeline, the timeline takes nothing but
//! [`Admitted`] frames, and only [`Tap::admit`] makes one: for a frame whose own epoch, stamped when its
//! packet arrived, is covered by the [`Permit`] that the tap holds. Whether recording is allowed *now* is
//! never asked, neither when a frame is captured nor when it is written; both designs store what nobody
//! agreed to (docs/POLICY.md). A tap without its permit does not exist: revoking drops both.

use consent::{CallId, Permit};

use crate::Frame;

/// Holds a live permit and lets through what it covers.
#[derive(Debug)]
pub struct Tap {
    call: CallId,
    permit: Permit,
}

/// A frame that may be stored. The field is private to this module: there is no other way to make one.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Frame);

impl Tap {
    /// A tap on `call`. A permit of another call opens nothing.
    #[must_use]
    pub const fn open(call: CallId, permit: Permit) -> Self {
        Self { call, permit }
    }

    /// The frame, if its epoch is covered.
    #[must_use]
    pub fn admit<'a>(&self, frame: &'a Frame) -> Option<Admitted<'a>> {
        self.permit.covers(self.call, frame.epoch).then_some(Admitted(frame))
    }
}

impl<'a> Admitted<'a> {
    /// The frame.
    #[must_use]
    pub const fn frame(&self) -> &'a Frame {
        self.0
    }
}
