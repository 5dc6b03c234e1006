//! The kernel's answers to requests: acknowledged, or refused with a reason.

use std::io;

use crate::Error;
use crate::wire::{Message, attributes, i32_at, text, u32_at};

/// The kernel's refusal of one request: errno and what it said.
pub(crate) type Refusal = (i32, String);

/// A refusal as an error about `object`.
pub(crate) fn kernel_error(op: &'static str, object: String, errno: i32, message: String) -> Error {
    Error::Sys { op, object, message, errno: io::Error::from_raw_os_error(errno) }
}

/// What an NLMSG_ERROR refuses; none if it acknowledges.
pub(crate) fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let errno = i32_at(message.payload, 0).unwrap_or(-libc::EIO).checked_neg()?;
    if errno == 0 {
        return None;
    }
    // Behind the error number comes the request's header, and its body too unless capped.
    let request = match message.flags & libc::NLM_F_CAPPED as u16 {
        0 => u32_at(message.payload, 4).map_or(usize::MAX, |len| len as usize),
        _ => 16,
    };
    Some((errno, extended(message, request.saturating_add(4))))
}

/// The error at the end of a dump, where there is one.
pub(crate) fn end_of_dump(message: &Message<'_>) -> Option<Refusal> {
    if i32::from(message.kind) == libc::NLMSG_ERROR {
        return refusal(message);
    }
    let code = i32_at(message.payload, 0).filter(|code| *code < 0)?;
    Some((code.checked_neg()?, extended(message, 4)))
}

/// The text of an extended acknowledgement, whose attributes start at `at`.
fn extended(message: &Message<'_>, at: usize) -> String {
    const ATTR_MSG: u16 = 1;
    if message.flags & libc::NLM_F_ACK_TLVS as u16 == 0 {
        return String::new();
    }
    let all = message.payload.get(at..).unwrap_or_default();
    attributes(all).find(|(kind, _)| *kind == ATTR_MSG).map(|(_, value)| text(value)).unwrap_or_default()
}
