//! What a description says of recording: that it goes on (`a=record`, RFC 7866 §7.1.2), and whether its party
//! wants it (`a=recordpref`, §7.1.3). Of a value at both levels the media's own counts. Values that are none of
//! the RFC's say nothing.

use sdp_types::{Attribute, Media, Session};

use super::{Description, is_rtp};

const RECORD: &str = "record";
const RECORD_PREFERENCE: &str = "recordpref";

/// How far somebody records, as `a=record` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recording {
    /// `off`, and where nothing is said.
    #[default]
    Off,
    /// `paused`.
    Paused,
    /// `on`.
    On,
}

/// What a party wants, as `a=recordpref` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordPreference {
    /// `on`.
    On,
    /// `nopreference`.
    None,
    /// `pause`.
    Pause,
    /// `off`.
    Off,
}

/// What becomes of `a=record` and `a=recordpref` in a description that is passed on. Both were said to us: a
/// preference that went on would come back from whoever is next as its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordLine {
    /// Both stay as received.
    #[default]
    Received,
    /// Neither is left.
    Removed,
    /// One `a=record` of ours takes their place, for the whole session.
    Ours(Recording),
}

impl Recording {
    const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Paused => "paused",
            Self::On => "on",
        }
    }

    fn read(word: &str) -> Option<Self> {
        let word = word.trim();
        [Self::Off, Self::Paused, Self::On].into_iter().find(|known| word.eq_ignore_ascii_case(known.word()))
    }
}

impl RecordPreference {
    fn read(word: &str) -> Option<Self> {
        let known =
            [("on", Self::On), ("nopreference", Self::None), ("pause", Self::Pause), ("off", Self::Off)];
        let word = word.trim();
        known.into_iter().find(|(text, _)| word.eq_ignore_ascii_case(text)).map(|(_, preference)| preference)
    }
}

impl Description {
    /// Whether its party says that it records, in any of its streams; `None` if it does not speak of it.
    pub fn recording(&self) -> Option<Recording> {
        let common = stated(&self.session.attributes, RECORD, Recording::read);
        let streams = self.session.medias.iter().filter(|media| media.port != 0);
        let own = streams.filter_map(|media| stated(&media.attributes, RECORD, Recording::read).or(common));
        own.max().or(common)
    }

    /// Whether its party wants its audio recorded; `None` if it does not say so of all of it. Who wants none of
    /// one stream wants none.
    pub fn preference(&self) -> Option<RecordPreference> {
        let of = |attributes: &[Attribute]| stated(attributes, RECORD_PREFERENCE, RecordPreference::read);
        let common = of(&self.session.attributes);
        let audio = |media: &&Media| media.media.eq_ignore_ascii_case("audio") && is_rtp(media);
        let streams = self.session.medias.iter().filter(audio).filter(|media| media.port != 0);
        let own: Vec<_> = streams.map(|media| of(&media.attributes).or(common)).collect();
        let strictest = own.iter().copied().flatten().max();
        match strictest {
            None if own.is_empty() => common,
            Some(RecordPreference::On) if own.contains(&None) => None,
            strictest => strictest,
        }
    }

    /// The same with this in place of what it says of recording.
    #[must_use]
    pub fn recorded(&self, line: RecordLine) -> Self {
        let mut described = self.clone();
        put(&mut described.session, line);
        described
    }
}

pub(super) fn put(session: &mut Session, line: RecordLine) {
    let own = match line {
        RecordLine::Received => return,
        RecordLine::Removed => None,
        RecordLine::Ours(recording) => Some(recording),
    };
    let is_other = |attribute: &Attribute| {
        ![RECORD, RECORD_PREFERENCE].iter().any(|name| attribute.attribute.eq_ignore_ascii_case(name))
    };
    session.attributes.retain(is_other);
    for media in &mut session.medias {
        media.attributes.retain(is_other);
    }
    session.attributes.extend(own.map(|recording| Attribute {
        attribute: RECORD.to_owned(),
        value: Some(recording.word().to_owned()),
    }));
}

/// The strictest of what one level says.
fn stated<T: Ord>(attributes: &[Attribute], name: &str, read: fn(&str) -> Option<T>) -> Option<T> {
    let named = attributes.iter().filter(|attribute| attribute.attribute.eq_ignore_ascii_case(name));
    named.filter_map(|attribute| read(attribute.value.as_deref()?)).max()
}
