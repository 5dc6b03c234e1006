//! What is wrong with an UPDATE, and what RFC 7606 wants to come of it.

use std::fmt;

/// What comes of a malformed attribute, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The attribute is as if it were not there.
    Discard,
    /// The routes are as if they were withdrawn.
    Withdraw,
}

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It is there twice; the first counts.
    Duplicate,
    /// Its flags are not those of its type.
    Flags,
    /// Its length is not one of its type's.
    Length,
    /// It does not end before the attributes do.
    Overrun,
    /// A value that there is not.
    Value,
    /// An address that nothing can be sent to.
    NextHop,
    /// It has no business on such a session.
    Unexpected,
    /// It is not there.
    Missing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Duplicate => "is there twice",
            Fault::Flags => "has wrong flags",
            Fault::Length => "has a wrong length",
            Fault::Overrun => "is longer than the attributes",
            Fault::Value => "has an impossible value",
            Fault::NextHop => "leads nowhere",
            Fault::Unexpected => "does not belong on this session",
            Fault::Missing => "is missing",
        })
    }
}

/// A malformed attribute of an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Its type.
    pub attribute: u8,
    /// What is wrong with it.
    pub fault: Fault,
    /// What comes of it.
    pub action: Action,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Discard => "discarded",
            Action::Withdraw => "routes treated as withdrawn",
        };
        write!(f, "attribute {} {}: {action}", self.attribute, self.fault)
    }
}

/// So many of one UPDATE are told; the rest count, and are forgotten.
const TOLD: usize = 8;

/// What is wrong with an UPDATE.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) told: Vec<Malformed>,
    pub(super) worst: Option<Action>,
}

impl Faults {
    pub(super) fn add(&mut self, attribute: u8, fault: Fault, action: Action) {
        if self.told.len() < TOLD {
            self.told.push(Malformed { attribute, fault, action });
        }
        self.worst = self.worst.max(Some(action));
    }
}
