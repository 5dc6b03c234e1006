//! The kernel's own expressions, and how they are written; `low_read.rs` reads them.

use super::wire::Body;

/// The register that matches use; address translation takes the port from [`SECOND`].
pub(super) const REGISTER: u32 = 1;
/// The second register, as nft numbers it.
pub(crate) const SECOND: u32 = 2;
/// `NFT_REG32_00`: the first of the registers of four bytes, four of which are one of the others.
pub(super) const WORDS: u32 = 8;
pub(super) const VERDICT_REGISTER: u32 = 0;
/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_TYPE: u32 = 3;
/// `NFT_NAT_DNAT`, and the flags that follow from an address and a port.
pub(super) const NAT_DESTINATION: u32 = 1;
pub(super) const NAT_FLAGS: u32 = 3;
/// `NFT_NG_RANDOM`.
pub(super) const RANDOM: u32 = 1;

/// `NFT_RT_TCPMSS`.
pub(super) const ROUTE_SEGMENT: u32 = 3;
/// `NFT_BYTEORDER_HTON`, and the bytes it turns.
pub(super) const TO_NETWORK: u32 = 1;
pub(super) const TURNED: u32 = 2;
/// `NFT_EXTHDR_OP_TCPOPT`, and where the segment size is in its option (RFC 9293, section 3.2).
pub(super) const TCP_OPTION: u32 = 1;
pub(super) const SEGMENT_OPTION: u8 = 2;
pub(super) const SEGMENT_OFFSET: u32 = 2;
pub(super) const SEGMENT_LENGTH: u32 = 2;

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
    /// An address's kind as the routing table has it; `NFTA_FIB_F_*` say whose.
    AddressType {
        flags: u32,
    },
    /// Translates the destination to the address and the port in two registers.
    Dnat {
        family: u32,
        address: u8,
        port: u8,
    },
    /// [`Low::Payload`] into the registers of four bytes from a later one than the first on.
    PayloadAt {
        at: u8,
        base: u32,
        offset: u32,
        len: u32,
    },
    /// [`Low::Meta`] into a later register.
    MetaAt {
        at: u8,
        key: u32,
    },
    /// Loads `offset` and a random number below `modulus`, in the machine's byte order.
    Random {
        at: u8,
        modulus: u32,
        offset: u32,
    },
    /// [`Low::Lookup`] of later registers.
    LookupAt {
        at: u8,
        set: String,
        negate: bool,
    },
    /// Loads what a map has for the registers from `at` on.
    Map {
        at: u8,
        map: String,
        to: u8,
    },
    /// Does what a map has for the registers from `at` on.
    VerdictMap {
        at: u8,
        map: String,
    },
    /// Changes a set by what is in registers; `NFT_DYNSET_OP_*`, milliseconds (0: the set's own).
    Change {
        op: u32,
        set: String,
        key: u8,
        data: Option<u8>,
        timeout: u64,
    },
    /// Clears what is not in the mask, and turns the bits of `xor`.
    Bitwise {
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Loads what the connection has under a key (`NFT_CT_*`).
    Conntrack(u32),
    /// Answers that it is refused; `NFT_REJECT_*` and ICMP's code.
    Reject {
        kind: u32,
        code: u8,
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

    /// What the kernel calls it.
    pub(super) fn name(&self) -> &str {
        self.attributes().0
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
            Low::AddressType { flags } => {
                b.be32(1, REGISTER).be32(2, FIB_TYPE).be32(3, *flags);
                "fib"
            }
            Low::Dnat { family, address, port } => {
                b.be32(1, NAT_DESTINATION).be32(2, *family);
                b.be32(3, register(*address)).be32(5, register(*port));
                "nat"
            }
            Low::PayloadAt { at, base, offset, len } => {
                b.be32(1, register(*at)).be32(2, *base).be32(3, *offset).be32(4, *len);
                "payload"
            }
            Low::MetaAt { at, key } => {
                b.be32(1, register(*at)).be32(2, *key);
                "meta"
            }
            Low::Random { at, modulus, offset } => {
                b.be32(1, register(*at)).be32(2, *modulus).be32(3, RANDOM).be32(4, *offset);
                "numgen"
            }
            Low::LookupAt { at, set, negate } => {
                b.text(1, set).be32(2, register(*at)).be32(5, u32::from(*negate));
                "lookup"
            }
            Low::Map { at, map, to } => {
                b.text(1, map).be32(2, register(*at)).be32(3, register(*to));
                "lookup"
            }
            Low::VerdictMap { at, map } => {
                b.text(1, map).be32(2, register(*at)).be32(3, VERDICT_REGISTER);
                "lookup"
            }
            Low::Change { op, set, key, data, timeout } => {
                b.text(1, set).be32(3, *op).be32(4, register(*key));
                if let Some(data) = data {
                    b.be32(5, register(*data));
                }
                if *timeout != 0 {
                    b.bytes(6, &timeout.to_be_bytes());
                }
                "dynset"
            }
            Low::Bitwise { mask, xor } => {
                b.be32(1, REGISTER).be32(2, REGISTER).be32(3, mask.len() as u32);
                b.nest(4, value(mask)).nest(5, value(xor));
                "bitwise"
            }
            Low::Conntrack(key) => {
                b.be32(1, REGISTER).be32(2, *key);
                "ct"
            }
            Low::Reject { kind, code } => {
                b.be32(1, *kind).bytes(2, &[*code]);
                "reject"
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
}

/// How a register of four bytes is numbered in messages.
pub(super) fn register(at: u8) -> u32 {
    WORDS + u32::from(at)
}
