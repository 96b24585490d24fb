//! The only door from a packet to a file.
//!
//! Everything that ends up in a recording goes through the timeline, the timeline takes nothing but
//! [`Admitted`] frames, and only [`Tap::admit`] makes one: for a frame whose own epoch, stamped when its
//! packet arrived, is covered by the [`Permit`] that the tap holds. Whether recording is allowed *now* is
//! never asked, neither when a frame is captured nor when it is written; both designs store what nobody
//! agreed to (docs/POLICY.md). A tap without its permit does not exist: revoking drops both.

use consent::{CallId, Epoch, Permit, PermitId};

use crate::Frame;

/// Holds a live permit and lets through what it covers.
#[derive(Debug)]
pub struct Tap {
    call: CallId,
    permit: Permit,
    before: Option<Epoch>,
}

/// A frame that may be stored. The field is private to this module: there is no other way to make one.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Frame);

impl Tap {
    /// A tap on `call`. A permit of another call opens nothing.
    #[must_use]
    pub const fn open(call: CallId, permit: Permit) -> Self {
        Self { call, permit, before: None }
    }

    /// The frame, if its epoch is covered.
    #[must_use]
    pub fn admit<'a>(&self, frame: &'a Frame) -> Option<Admitted<'a>> {
        let in_range = self.before.is_none_or(|before| frame.epoch < before);
        (in_range && self.permit.covers(self.call, frame.epoch)).then_some(Admitted(frame))
    }

    /// From now on nothing stamped `before` or later passes. It can be narrowed again, never widened.
    pub fn narrow(&mut self, before: Epoch) {
        self.before = Some(self.before.map_or(before, |earlier| earlier.min(before)));
    }

    /// Whether it is this permit that the tap holds.
    #[must_use]
    pub fn holds(&self, permit: PermitId) -> bool {
        self.permit.id() == permit
    }

    /// The permit.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }
}

impl<'a> Admitted<'a> {
    /// The frame.
    #[must_use]
    pub const fn frame(&self) -> &'a Frame {
        self.0
    }
}
