//! What the demonstration's parties say. The texts and how the clips were made: `README.md` beside them.

/// A clip of speech.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    /// Its name, without an ending.
    pub name: &'static str,
    /// G.711 µ-law, 8 kHz, one channel.
    pub mu_law: &'static [u8],
}

/// Somebody reports smoke.
pub const DISPATCH_CALLER: Clip =
    Clip { name: "dispatch-caller", mu_law: include_bytes!("dispatch-caller.ul") };

/// The dispatcher answers.
pub const DISPATCH_OFFICER: Clip =
    Clip { name: "dispatch-officer", mu_law: include_bytes!("dispatch-officer.ul") };

/// The Superintendent's office.
pub const OFFICE: Clip = Clip { name: "office", mu_law: include_bytes!("office.ul") };

/// A parent calls.
pub const PARENT: Clip = Clip { name: "parent", mu_law: include_bytes!("parent.ul") };
