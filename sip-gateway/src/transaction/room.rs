//! Who may take a place among the server transactions, so that no kind of request crowds out another.
//!
//! | room | places | without a place |
//! |---|---|---|
//! | INVITEs refused before one of ours went on, until their ACK | a quarter of the limit | answered once, without a transaction (RFC 3261 §8.2.7) |
//! | new calls | the limit | 503 with Retry-After |
//! | new calls of dispatch lines | twice the limit | 503 with Retry-After |
//! | new emergency calls | twice the limit | 503 with Retry-After |
//! | requests within calls, for each of these three classes of call | twice the limit | 500 with Retry-After |
//! | the same, of one leg of one call | [`REQUESTS_OF_A_LEG`] | 500 with Retry-After |
//! | BYE, of one leg of one call | [`BYES_OF_A_LEG`], of nobody else's | 500 with Retry-After |
//!
//! The limit is that of [`Rooms::new`]. The places of BYEs are bounded by the number of calls.

use std::collections::HashMap;

use consent::{CallId, Leg};

/// Requests of one leg within 32 s (Timer J). A person who keys in a card's number sends some thirty
/// INFOs in that time; a session's refreshes and OPTIONS are a handful.
pub(crate) const REQUESTS_OF_A_LEG: usize = 64;

/// One would do; a telephone whose first BYE came out of sequence, or on a connection that broke, sends
/// another.
pub(crate) const BYES_OF_A_LEG: usize = 4;

/// No room for another transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many transactions")]
pub(crate) struct Full;

/// What kind of call it is, as far as room is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// May be refused.
    Ordinary,
    /// Of a dispatch line: never refused for an ordinary one's sake.
    Dispatch,
    /// Never refused for anything's sake.
    Emergency,
}

/// A leg of a call, and the call's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Within {
    pub(crate) class: Class,
    pub(crate) call: CallId,
    pub(crate) leg: Leg,
}

/// Which room a request takes its place in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// An INVITE refused, until its ACK.
    Refusal,
    /// A new call.
    New(Class),
    /// A request of a call that exists.
    InCall(Within),
    /// A BYE.
    Bye(Within),
}

/// Places taken in each room.
#[derive(Debug)]
pub(crate) struct Rooms {
    limit: usize,
    refusals: usize,
    new: [usize; 3],
    in_call: [usize; 3],
    legs: HashMap<(CallId, Leg), LegPlaces>,
}

/// Places that one leg of one call has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LegPlaces {
    requests: usize,
    byes: usize,
}

impl Rooms {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, refusals: 0, new: [0; 3], in_call: [0; 3], legs: HashMap::new() }
    }

    /// Whether another request would find a place.
    pub(crate) fn has(&self, room: Room) -> bool {
        let twice = self.limit.saturating_mul(2);
        match room {
            Room::Refusal => self.refusals < self.limit / 4,
            Room::New(class @ Class::Ordinary) => self.new[class.index()] < self.limit,
            Room::New(class) => self.new[class.index()] < twice,
            Room::InCall(within) => {
                self.in_call[within.class.index()] < twice && self.of_leg(within).requests < REQUESTS_OF_A_LEG
            }
            Room::Bye(within) => self.of_leg(within).byes < BYES_OF_A_LEG,
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub(crate) fn take(&mut self, room: Room) -> Result<(), Full> {
        if !self.has(room) {
            return Err(Full);
        }
        self.count(room, |taken| taken.saturating_add(1));
        Ok(())
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, room: Room) {
        self.count(room, |taken| taken.saturating_sub(1));
    }

    fn count(&mut self, room: Room, change: impl Fn(usize) -> usize) {
        let on = |taken: &mut usize| *taken = change(*taken);
        match room {
            Room::Refusal => on(&mut self.refusals),
            Room::New(class) => on(&mut self.new[class.index()]),
            Room::InCall(within) => {
                on(&mut self.in_call[within.class.index()]);
                self.count_leg(within, |leg| leg.requests = change(leg.requests));
            }
            Room::Bye(within) => self.count_leg(within, |leg| leg.byes = change(leg.byes)),
        }
    }

    fn count_leg(&mut self, within: Within, change: impl FnOnce(&mut LegPlaces)) {
        let leg = (within.call, within.leg);
        let places = self.legs.entry(leg).or_default();
        change(places);
        if *places == LegPlaces::default() {
            self.legs.remove(&leg);
        }
    }

    fn of_leg(&self, within: Within) -> LegPlaces {
        self.legs.get(&(within.call, within.leg)).copied().unwrap_or_default()
    }
}

impl Class {
    const fn index(self) -> usize {
        match self {
            Self::Ordinary => 0,
            Self::Dispatch => 1,
            Self::Emergency => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const CLASSES: [Class; 3] = [Class::Ordinary, Class::Dispatch, Class::Emergency];

    fn within(class: Class, call: u128, leg: Leg) -> Within {
        Within { class, call: CallId(call), leg }
    }

    /// How many find a place, of a great many.
    fn fill(rooms: &mut Rooms, room: impl Fn(u128) -> Room) -> usize {
        (0..10_000).filter(|n| rooms.take(room(*n)).is_ok()).count()
    }

    #[test]
    fn each_room_has_its_bound_and_takes_nothing_from_another() {
        let mut rooms = Rooms::new(100);
        assert_eq!(fill(&mut rooms, |_| Room::Refusal), 25);
        assert_eq!(CLASSES.map(|class| fill(&mut rooms, |_| Room::New(class))), [100, 200, 200]);
        let in_call = |class| move |n| Room::InCall(within(class, n, Leg::A));
        assert_eq!(CLASSES.map(|class| fill(&mut rooms, in_call(class))), [200, 200, 200]);
    }

    #[test]
    fn a_leg_takes_no_place_of_the_other_leg_nor_of_another_call() {
        let mut rooms = Rooms::new(1_000);
        for (call, leg) in [(1, Leg::A), (1, Leg::B), (2, Leg::A)] {
            let of_this_leg = |_| Room::InCall(within(Class::Ordinary, call, leg));
            assert_eq!(fill(&mut rooms, of_this_leg), REQUESTS_OF_A_LEG);
        }
    }

    #[test]
    fn a_bye_finds_a_place_whatever_the_others_have_taken() {
        let mut rooms = Rooms::new(32);
        assert_eq!(fill(&mut rooms, |_| Room::InCall(within(Class::Ordinary, 1, Leg::A))), 64);
        assert_eq!(
            rooms.take(Room::InCall(within(Class::Ordinary, 2, Leg::A))),
            Err(Full),
            "the room is full"
        );
        assert_eq!(rooms.take(Room::Bye(within(Class::Ordinary, 2, Leg::A))), Ok(()));
        assert_eq!(fill(&mut rooms, |_| Room::Bye(within(Class::Ordinary, 1, Leg::A))), BYES_OF_A_LEG);
    }

    #[test]
    fn a_bye_takes_the_place_of_nobody_else() {
        let mut rooms = Rooms::new(32);
        let byes = fill(&mut rooms, |n| Room::Bye(within(Class::Ordinary, n, Leg::A)));
        assert_eq!((byes, rooms.in_call), (10_000, [0; 3]));
        assert_eq!(fill(&mut rooms, |_| Room::Bye(within(Class::Ordinary, 1, Leg::B))), BYES_OF_A_LEG);
        assert_eq!(fill(&mut rooms, |_| Room::InCall(within(Class::Ordinary, 1, Leg::B))), 64);
    }

    #[test]
    fn a_place_given_back_is_free_again_and_nothing_is_kept_of_a_leg_without_any() {
        let mut rooms = Rooms::new(4);
        for room in [
            Room::Refusal,
            Room::New(Class::Dispatch),
            Room::InCall(within(Class::Emergency, 7, Leg::B)),
            Room::Bye(within(Class::Ordinary, 7, Leg::A)),
        ] {
            let places = fill(&mut rooms, |_| room);
            rooms.leave(room);
            assert_eq!(fill(&mut rooms, |_| room), 1);
            (0..places).for_each(|_| rooms.leave(room));
        }
        assert!(rooms.legs.is_empty());
        assert_eq!((rooms.refusals, rooms.new, rooms.in_call), (0, [0; 3], [0; 3]));
    }
}
