//! What epoll gives back with an event: whom it is for.

/// Owner of a registered descriptor. Numbers are not used again for another owner before all of
/// them were, so that an event that comes late finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// Somebody wants the thread to look at its orders.
    Waker,
    /// The listener of this number.
    Listener(u64),
    /// A side of the connection in a slot.
    Side { slot: u32, endpoint: bool },
    /// The flow in a slot.
    Flow { slot: u32, serial: u32 },
}

const KIND: u32 = 62;
const SLOT_BITS: u32 = 28;

/// Connections a thread can tell apart.
pub(super) const MOST_SLOTS: usize = 1 << SLOT_BITS;

impl Token {
    pub(super) fn read(token: u64) -> Token {
        let slot = (token >> 32) as u32 & (MOST_SLOTS as u32 - 1);
        match token >> KIND {
            0 => Token::Waker,
            1 => Token::Listener(token & !(3 << KIND)),
            2 => Token::Side { slot, endpoint: token >> 60 & 1 == 1 },
            _ => Token::Flow { slot, serial: token as u32 },
        }
    }

    pub(super) fn waker() -> u64 {
        0
    }

    pub(super) fn listener(id: u64) -> u64 {
        1 << KIND | id
    }

    /// `serial` tells this socket from others that were in the slot before.
    pub(super) fn side(slot: u32, endpoint: bool, serial: u32) -> u64 {
        2 << KIND | u64::from(endpoint) << 60 | u64::from(slot) << 32 | u64::from(serial)
    }

    pub(super) fn flow(slot: u32, serial: u32) -> u64 {
        3 << KIND | u64::from(slot) << 32 | u64::from(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whom_it_was_made_for() {
        assert_eq!(Token::read(Token::waker()), Token::Waker);
        assert_eq!(Token::read(Token::listener(77)), Token::Listener(77));
        let slot = MOST_SLOTS as u32 - 1;
        for endpoint in [false, true] {
            let token = Token::side(slot, endpoint, u32::MAX);
            assert_eq!(Token::read(token), Token::Side { slot, endpoint });
        }
        assert_eq!(Token::read(Token::flow(slot, 5)), Token::Flow { slot, serial: 5 });
    }
}
