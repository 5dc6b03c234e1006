//! OPEN: who a speaker is, and what it can do.

use std::net::Ipv4Addr;

use super::capability::Capabilities;
use super::notification::{Notification, Reason};
use super::wire::Reader;

/// The only version there is.
const VERSION: u8 = 4;
/// Stands for an AS number that two octets cannot say (RFC 6793).
pub const AS_TRANS: u16 = 23456;
/// The optional parameter that capabilities are in.
const CAPABILITIES: u8 = 2;
/// Says that lengths of parameters have two octets (RFC 9072).
const EXTENDED: u8 = 255;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number: that of the four-octet capability where there is one.
    pub asn: u32,
    /// The hold time that it proposes, in seconds: 0 (no keepalives) or at least 3.
    pub hold: u16,
    /// Its BGP identifier.
    pub id: Ipv4Addr,
    /// What it can do.
    pub capabilities: Capabilities,
}

impl Open {
    pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
        let mut body = Reader(body);
        let malformed = || Notification::from(Reason::OPEN);
        if body.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::new(Reason::VERSION, &u16::from(VERSION).to_be_bytes()));
        }
        let short = body.u16().ok_or_else(malformed)?;
        let hold = body.u16().ok_or_else(malformed)?;
        let id = Ipv4Addr::from(body.array::<4>().ok_or_else(malformed)?);
        let capabilities = parameters(body)?;
        let asn = capabilities.four_octet_as.unwrap_or(u32::from(short));
        let trans = u32::from(AS_TRANS);
        // A four-octet number must agree with the short one wherever two octets can say it.
        let agrees = match u16::try_from(asn) {
            Ok(asn) => asn == short,
            Err(_) => short == AS_TRANS,
        };
        if asn == 0 || asn == trans || !agrees {
            return Err(Reason::PEER_AS.into());
        }
        if id.is_unspecified() {
            return Err(Reason::IDENTIFIER.into());
        }
        if matches!(hold, 1 | 2) {
            return Err(Reason::HOLD_TIME.into());
        }
        Ok(Open { asn, hold, id, capabilities })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut capabilities = Vec::new();
        self.capabilities.encode(&mut capabilities);
        out.push(VERSION);
        out.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        out.extend(self.hold.to_be_bytes());
        out.extend(self.id.octets());
        // Ours never come near 253 bytes, so that the extended form (RFC 9072) is only read.
        let length = capabilities.len() as u8;
        match length {
            0 => out.push(0),
            _ => out.extend([length + 2, CAPABILITIES, length]),
        }
        out.extend(capabilities);
    }
}

fn parameters(mut body: Reader<'_>) -> Result<Capabilities, Notification> {
    let malformed = || Notification::from(Reason::OPEN);
    let length = body.u8().ok_or_else(malformed)?;
    let extended = length != 0 && body.0.first() == Some(&EXTENDED);
    let length = match extended {
        true => {
            body.u8();
            body.u16().ok_or_else(malformed)?
        }
        false => u16::from(length),
    };
    let mut parameters = Reader(body.take(length.into()).ok_or_else(malformed)?);
    if !body.is_empty() {
        return Err(malformed());
    }
    let mut capabilities = Capabilities::default();
    while !parameters.is_empty() {
        let kind = parameters.u8().ok_or_else(malformed)?;
        let length = if extended { parameters.u16() } else { parameters.u8().map(u16::from) };
        let value = length.and_then(|length| parameters.take(length.into())).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Reason::PARAMETER.into());
        }
        capabilities.decode(value).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}
