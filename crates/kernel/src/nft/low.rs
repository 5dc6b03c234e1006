//! The kernel's own expressions, written and read.

use super::wire::{Attributes, Body};

/// The register that matches use; address translation takes the port from [`SECOND`].
const REGISTER: u32 = 1;
/// The second register, as nft numbers it.
pub(crate) const SECOND: u32 = 2;
const VERDICT_REGISTER: u32 = 0;
/// `NFT_FIB_RESULT_ADDRTYPE` and `NFTA_FIB_F_DADDR`.
const FIB_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
/// `NFT_NAT_DNAT`, and the flags that follow from an address and a port.
const NAT_DESTINATION: u32 = 1;
const NAT_FLAGS: u32 = 3;

/// `NFT_RT_TCPMSS`.
const ROUTE_SEGMENT: u32 = 3;
/// `NFT_BYTEORDER_HTON`, and the bytes it turns.
const TO_NETWORK: u32 = 1;
const TURNED: u32 = 2;
/// `NFT_EXTHDR_OP_TCPOPT`, and where the segment size is in its option (RFC 9293, section 3.2).
const TCP_OPTION: u32 = 1;
const SEGMENT_OPTION: u8 = 2;
const SEGMENT_OFFSET: u32 = 2;
const SEGMENT_LENGTH: u32 = 2;

/// `NF_*` and `NFT_*` verdict codes.
pub(crate) mod verdict {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const CONTINUE: i32 = -1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// One kernel expression (`NFTA_EXPR_NAME` and its data).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Low {
    Payload {
        base: u32,
        offset: u32,
        len: u32,
    },
    Mask(Vec<u8>),
    Compare {
        negate: bool,
        data: Vec<u8>,
    },
    Lookup {
        set: String,
        negate: bool,
    },
    Meta(u32),
    SetMeta(u32),
    /// Loads a constant into a register.
    Value {
        register: u32,
        data: Vec<u8>,
    },
    Verdict {
        code: i32,
        chain: Option<String>,
    },
    Counter,
    Masquerade {
        flags: u32,
    },
    /// The destination's kind as the routing table has it (`fib daddr type`).
    DestinationType,
    /// Translates the destination to the address in the first register and the port in the second.
    Dnat {
        family: u32,
    },
    /// Loads the segment size that the packet's route takes, in the machine's byte order.
    RouteSegment,
    /// Turns two bytes into the network's order.
    ToNetwork,
    /// Lowers the segment size that a TCP header offers to that in the register.
    SetSegment,
    Range {
        negate: bool,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    /// A match of iptables by its name, revision and own structure.
    Match {
        name: String,
        revision: u32,
        info: Vec<u8>,
    },
    /// A target of iptables.
    Target {
        name: String,
        revision: u32,
        info: Vec<u8>,
    },
    Other(String),
}

impl Low {
    /// Writes it as one `NFTA_LIST_ELEM`.
    pub(crate) fn write(&self, list: &mut Body) {
        let (name, data) = self.attributes();
        list.nest(1, |e| {
            e.text(1, name).nest(2, |d| d.0.extend(&data.0));
        });
    }

    fn attributes(&self) -> (&str, Body) {
        let mut b = Body::default();
        let value = |data: &[u8]| {
            let data = data.to_vec();
            move |b: &mut Body| {
                b.bytes(1, &data);
            }
        };
        let name = match self {
            Low::Payload { base, offset, len } => {
                b.be32(1, REGISTER).be32(2, *base).be32(3, *offset).be32(4, *len);
                "payload"
            }
            Low::Mask(mask) => {
                b.be32(1, REGISTER).be32(2, REGISTER).be32(3, mask.len() as u32);
                b.nest(4, value(mask)).nest(5, value(&vec![0; mask.len()]));
                "bitwise"
            }
            Low::Compare { negate, data } => {
                b.be32(1, REGISTER).be32(2, u32::from(*negate)).nest(3, value(data));
                "cmp"
            }
            Low::Lookup { set, negate } => {
                b.text(1, set).be32(2, REGISTER).be32(5, u32::from(*negate));
                "lookup"
            }
            Low::Meta(key) => {
                b.be32(1, REGISTER).be32(2, *key);
                "meta"
            }
            Low::SetMeta(key) => {
                b.be32(2, *key).be32(3, REGISTER);
                "meta"
            }
            Low::Value { register, data } => {
                b.be32(1, *register).nest(2, value(data));
                "immediate"
            }
            Low::Verdict { code, chain } => {
                b.be32(1, VERDICT_REGISTER).nest(2, |d| {
                    d.nest(2, |v| {
                        v.be32(1, code.cast_unsigned());
                        if let Some(chain) = chain {
                            v.text(2, chain);
                        }
                    });
                });
                "immediate"
            }
            Low::Counter => "counter",
            Low::Masquerade { flags } => {
                if *flags != 0 {
                    b.be32(1, *flags);
                }
                "masq"
            }
            Low::DestinationType => {
                b.be32(1, REGISTER).be32(2, FIB_TYPE).be32(3, FIB_DESTINATION);
                "fib"
            }
            Low::Dnat { family } => {
                b.be32(1, NAT_DESTINATION).be32(2, *family).be32(3, REGISTER).be32(5, SECOND);
                "nat"
            }
            Low::RouteSegment => {
                b.be32(1, REGISTER).be32(2, ROUTE_SEGMENT);
                "rt"
            }
            Low::ToNetwork => {
                b.be32(1, REGISTER).be32(2, REGISTER).be32(3, TO_NETWORK).be32(4, TURNED).be32(5, TURNED);
                "byteorder"
            }
            Low::SetSegment => {
                b.bytes(2, &[SEGMENT_OPTION]).be32(3, SEGMENT_OFFSET).be32(4, SEGMENT_LENGTH);
                b.be32(6, TCP_OPTION).be32(7, REGISTER);
                "exthdr"
            }
            Low::Range { negate, first, last } => {
                b.be32(1, REGISTER).be32(2, u32::from(*negate));
                b.nest(3, value(first)).nest(4, value(last));
                "range"
            }
            Low::Match { name, revision, info } => {
                b.text(1, name).be32(2, *revision).bytes(3, info);
                "match"
            }
            Low::Target { name, revision, info } => {
                b.text(1, name).be32(2, *revision).bytes(3, info);
                "target"
            }
            Low::Other(name) => name,
        };
        (name, b)
    }

    /// Reads one `NFTA_LIST_ELEM`'s inside.
    pub(crate) fn read(element: Attributes<'_>) -> Low {
        let name = element.text(1).unwrap_or_default();
        Low::known(&name, element.nested(2)).unwrap_or(Low::Other(name))
    }

    fn known(name: &str, data: Attributes<'_>) -> Option<Low> {
        let ours = |kind: u16| (data.be32(kind)? == REGISTER).then_some(());
        let value = |kind: u16| data.nested(kind).get(1).map(<[u8]>::to_vec);
        match name {
            "payload" => {
                ours(1)?;
                Some(Low::Payload { base: data.be32(2)?, offset: data.be32(3)?, len: data.be32(4)? })
            }
            "bitwise" => {
                ours(1).and(ours(2))?;
                let plain = value(5)?.iter().all(|b| *b == 0) && data.be32(6).unwrap_or(0) == 0;
                plain.then_some(Low::Mask(value(4)?))
            }
            "cmp" => {
                ours(1)?;
                let negate = match data.be32(2)? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                Some(Low::Compare { negate, data: value(3)? })
            }
            "lookup" => {
                ours(2)?;
                let plain = data.get(3).is_none();
                plain
                    .then_some(Low::Lookup { set: data.text(1)?, negate: data.be32(5).unwrap_or(0) & 1 == 1 })
            }
            "meta" if data.get(1).is_some() => ours(1).and(Some(Low::Meta(data.be32(2)?))),
            "meta" => ours(3).and(Some(Low::SetMeta(data.be32(2)?))),
            "immediate" if data.be32(1)? == VERDICT_REGISTER => {
                let v = data.nested(2).nested(2);
                Some(Low::Verdict { code: v.be32(1)?.cast_signed(), chain: v.text(2) })
            }
            "immediate" => Some(Low::Value { register: data.be32(1)?, data: value(2)? }),
            "fib" => {
                ours(1)?;
                let plain = data.be32(2)? == FIB_TYPE && data.be32(3)? == FIB_DESTINATION;
                plain.then_some(Low::DestinationType)
            }
            "nat" => {
                ours(3)?;
                let plain = data.be32(1)? == NAT_DESTINATION
                    && data.be32(4).is_none_or(|r| r == REGISTER)
                    && data.be32(5)? == SECOND
                    && data.be32(6).is_none_or(|r| r == SECOND)
                    && data.be32(7).unwrap_or(NAT_FLAGS) == NAT_FLAGS;
                plain.then_some(Low::Dnat { family: data.be32(2)? })
            }
            "rt" => {
                ours(1)?;
                (data.be32(2)? == ROUTE_SEGMENT).then_some(Low::RouteSegment)
            }
            "byteorder" => {
                ours(1).and(ours(2))?;
                let plain = data.be32(3)? == TO_NETWORK && (data.be32(4)?, data.be32(5)?) == (TURNED, TURNED);
                plain.then_some(Low::ToNetwork)
            }
            "exthdr" => {
                ours(7)?;
                let place = (data.be32(3)?, data.be32(4)?) == (SEGMENT_OFFSET, SEGMENT_LENGTH);
                let plain = place && data.get(2)? == [SEGMENT_OPTION] && data.be32(6)? == TCP_OPTION;
                plain.then_some(Low::SetSegment)
            }
            "range" => {
                ours(1)?;
                Some(Low::Range { negate: data.be32(2)? == 1, first: value(3)?, last: value(4)? })
            }
            "match" => {
                Some(Low::Match { name: data.text(1)?, revision: data.be32(2)?, info: data.get(3)?.to_vec() })
            }
            "target" => Some(Low::Target {
                name: data.text(1)?,
                revision: data.be32(2)?,
                info: data.get(3)?.to_vec(),
            }),
            "counter" => Some(Low::Counter),
            "masq" => {
                let plain = data.get(2).is_none();
                plain.then_some(Low::Masquerade { flags: data.be32(1).unwrap_or(0) })
            }
            _ => None,
        }
    }
}
