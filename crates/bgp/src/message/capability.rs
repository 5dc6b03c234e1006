//! Capabilities (RFC 5492): what a speaker says of itself in its OPEN.

use super::wire::Reader;
use crate::{Family, PerFamily};

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGES: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;

/// "The forwarding state was kept", in both restarts' flags of a family.
const KEPT: u8 = 0x80;
/// The longest restart time that fits, in seconds.
pub const RESTART_TIME: u16 = 0xfff;
/// The longest time that long-lived stale routes can be kept, in seconds.
pub const STALE_TIME: u32 = 0xff_ffff;

/// Which ways several paths to one prefix may go (RFC 7911), from the sender's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    /// The sender takes them.
    pub receive: bool,
    /// The sender sends them.
    pub send: bool,
}

/// Graceful restart (RFC 4724, RFC 8538).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The sender has restarted and waits for the others' End-of-RIB.
    pub restarted: bool,
    /// It keeps routes over NOTIFICATIONs too (RFC 8538).
    pub notification: bool,
    /// How long others may wait for it, in seconds, at most [`RESTART_TIME`].
    pub time: u16,
    /// The families it is for, and whether the sender has kept forwarding them.
    pub families: PerFamily<Option<bool>>,
}

/// Long-lived graceful restart of a family (RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// The sender has kept forwarding.
    pub kept: bool,
    /// How long its stale routes may be kept, in seconds, at most [`STALE_TIME`].
    pub time: u32,
}

/// All of them that we know; others are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The families (RFC 4760). One that says nothing of families speaks IPv4.
    pub families: Option<PerFamily<bool>>,
    /// Its AS number in four octets (RFC 6793).
    pub four_octet_as: Option<u32>,
    /// It sends its routes again when asked (RFC 2918).
    pub route_refresh: bool,
    /// It marks beginning and end of that (RFC 7313).
    pub enhanced_refresh: bool,
    /// It takes IPv6 next hops for IPv4 (RFC 8950).
    pub extended_next_hop: bool,
    /// It takes messages of 65,535 bytes (RFC 8654).
    pub extended_messages: bool,
    /// Several paths to a prefix (RFC 7911).
    pub add_path: PerFamily<AddPath>,
    /// Graceful restart.
    pub graceful_restart: Option<GracefulRestart>,
    /// Its long-lived form; without `graceful_restart` it means nothing.
    pub long_lived: PerFamily<Option<LongLived>>,
}

impl Capabilities {
    /// Takes in the capabilities of one optional parameter. `None` where one runs over it, or has a length
    /// that it cannot have.
    pub(super) fn decode(&mut self, parameter: &[u8]) -> Option<()> {
        let mut parameter = Reader(parameter);
        while !parameter.is_empty() {
            let code = parameter.u8()?;
            let length = parameter.u8()?;
            self.decode_one(code, Reader(parameter.take(length.into())?))?;
        }
        Some(())
    }

    fn decode_one(&mut self, code: u8, mut value: Reader<'_>) -> Option<()> {
        match code {
            MULTIPROTOCOL => {
                let (afi, _, safi) = (value.u16()?, value.u8()?, value.u8()?);
                let families = self.families.get_or_insert_default();
                if let Some(family) = Family::from_wire(afi, safi) {
                    families[family] = true;
                }
            }
            ROUTE_REFRESH => self.route_refresh = true,
            EXTENDED_MESSAGES => self.extended_messages = true,
            ENHANCED_REFRESH => self.enhanced_refresh = true,
            FOUR_OCTET_AS => self.four_octet_as = Some(value.u32()?),
            EXTENDED_NEXT_HOP => {
                while !value.is_empty() {
                    let (afi, safi, next_hop) = (value.u16()?, value.u16()?, value.u16()?);
                    self.extended_next_hop |= (afi, safi, next_hop) == (1, 1, 2);
                }
            }
            ADD_PATH => {
                while !value.is_empty() {
                    let (afi, safi, mode) = (value.u16()?, value.u8()?, value.u8()?);
                    // Other modes are to be ignored.
                    if let (Some(family), 1..=3) = (Family::from_wire(afi, safi), mode) {
                        self.add_path[family] = AddPath { receive: mode & 1 != 0, send: mode & 2 != 0 };
                    }
                }
            }
            GRACEFUL_RESTART => self.graceful_restart = Some(decode_graceful(&mut value)?),
            LONG_LIVED => {
                while !value.is_empty() {
                    let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
                    let [a, b, c] = value.array()?;
                    if let Some(family) = Family::from_wire(afi, safi) {
                        let time = u32::from_be_bytes([0, a, b, c]);
                        self.long_lived[family] = Some(LongLived { kept: flags & KEPT != 0, time });
                    }
                }
            }
            _ => return Some(()),
        }
        value.is_empty().then_some(())
    }

    /// Appends them, one after the other.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let of_families = |of: &dyn Fn(Family) -> Option<Vec<u8>>| -> Vec<u8> {
            let with_wire = |family: Family| {
                let (afi, safi) = family.wire();
                of(family).map(|value| [&afi.to_be_bytes(), &[safi][..], &value].concat())
            };
            Family::ALL.into_iter().filter_map(with_wire).flatten().collect()
        };
        for family in Family::ALL {
            if self.families.is_some_and(|families| families[family]) {
                let (afi, safi) = family.wire();
                put(out, MULTIPROTOCOL, &[&afi.to_be_bytes(), &[0, safi][..]].concat());
            }
        }
        let flags = [
            (self.route_refresh, ROUTE_REFRESH),
            (self.enhanced_refresh, ENHANCED_REFRESH),
            (self.extended_messages, EXTENDED_MESSAGES),
        ];
        for (_, code) in flags.into_iter().filter(|(has, _)| *has) {
            put(out, code, &[]);
        }
        if self.extended_next_hop {
            put(out, EXTENDED_NEXT_HOP, &[0, 1, 0, 1, 0, 2]);
        }
        if let Some(asn) = self.four_octet_as {
            put(out, FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        let mode = |family| match self.add_path[family] {
            AddPath { receive: false, send: false } => None,
            AddPath { receive, send } => Some(vec![u8::from(receive) | u8::from(send) << 1]),
        };
        put_unless_empty(out, ADD_PATH, &of_families(&mode));
        let kept = |kept: bool| if kept { KEPT } else { 0 };
        if let Some(restart) = self.graceful_restart {
            let flags = u16::from(restart.restarted) << 15 | u16::from(restart.notification) << 14;
            let mut value = (flags | restart.time.min(RESTART_TIME)).to_be_bytes().to_vec();
            value.extend(of_families(&|family| restart.families[family].map(|of| vec![kept(of)])));
            put(out, GRACEFUL_RESTART, &value);
        }
        let long = |family| {
            let LongLived { kept: of, time } = self.long_lived[family]?;
            let [_, a, b, c] = time.min(STALE_TIME).to_be_bytes();
            Some(vec![kept(of), a, b, c])
        };
        put_unless_empty(out, LONG_LIVED, &of_families(&long));
    }
}

fn decode_graceful(value: &mut Reader<'_>) -> Option<GracefulRestart> {
    let word = value.u16()?;
    let mut restart = GracefulRestart {
        restarted: word & 0x8000 != 0,
        notification: word & 0x4000 != 0,
        time: word & RESTART_TIME,
        families: PerFamily::default(),
    };
    while !value.is_empty() {
        let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
        if let Some(family) = Family::from_wire(afi, safi) {
            restart.families[family] = Some(flags & KEPT != 0);
        }
    }
    Some(restart)
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    // Two families at most: no value comes near 255 bytes.
    out.extend([code, value.len() as u8]);
    out.extend(value);
}

fn put_unless_empty(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    if !value.is_empty() {
        put(out, code, value);
    }
}
