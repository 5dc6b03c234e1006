//! What epoll says which socket by.

use crate::session::Side;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Waker,
    Listener(u32),
    Link(u32, Side),
    Closing(u32),
    /// BFD has something to tell.
    Watch,
}

impl Token {
    pub(super) fn write(self) -> u64 {
        let (kind, number) = match self {
            Token::Waker => (0, 0),
            Token::Listener(number) => (1, number),
            Token::Link(number, Side::Dialled) => (2, number),
            Token::Link(number, Side::Accepted) => (3, number),
            Token::Closing(number) => (4, number),
            Token::Watch => (5, 0),
        };
        kind << 32 | u64::from(number)
    }

    pub(super) fn read(token: u64) -> Token {
        let number = token as u32;
        match token >> 32 {
            1 => Token::Listener(number),
            2 => Token::Link(number, Side::Dialled),
            3 => Token::Link(number, Side::Accepted),
            4 => Token::Closing(number),
            5 => Token::Watch,
            _ => Token::Waker,
        }
    }
}
