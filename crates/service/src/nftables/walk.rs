//! What the planned tables do with a connection's first packet: the rules are followed one by one, as the kernel would.
//!
//! Who asks why a packet goes where it goes is told by the rules themselves, and tests hold the rules to the plan.
//! A rule of which this knows nothing is an error, and no guess.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use weft_kernel::nft::{Bytes, Change, Datum, Expr, Field, Rule, Set, Side};
use weft_model::service::Protocol;

use super::chains;
use super::state::State;
use crate::ServicePlan;

/// The bit of `ct status` that a changed destination sets.
const TRANSLATED: u32 = 0x20;
/// Rules do not jump deeper.
const DEPTH: usize = 16;
/// A choice among more than these is shown by its first.
const DRAWS: u32 = 4096;

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub from: IpAddr,
    /// Where it goes, of the same family.
    pub to: SocketAddr,
    /// By what.
    pub protocol: Protocol,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it was sent to.
    Passed,
    /// It goes to a backend.
    Led {
        /// To which.
        to: SocketAddr,
        /// Whether it goes with an address of the node.
        masqueraded: bool,
    },
    /// Its sender is told that nobody is there.
    Rejected,
    /// Nobody is told.
    Dropped,
}

/// A rule that did something to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The chain that the rule is in.
    pub chain: String,
    /// What it says: its comment, else its text.
    pub rule: String,
}

/// One way that it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The rules, first to last.
    pub steps: Vec<Step>,
    /// Of how many ways, each as likely, this is one.
    pub one_of: u32,
}

/// What the rules of this program do not say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chain {chain}: {what}")]
pub struct Unknown {
    /// The chain.
    pub chain: String,
    /// What is not known.
    pub what: String,
}

/// The tables of one family, as planned.
pub struct Tables {
    chains: BTreeMap<String, Vec<Rule>>,
    nets: BTreeMap<String, Set>,
    maps: BTreeMap<String, HashMap<Bytes, Datum>>,
    ipv6: bool,
}

impl Tables {
    /// Renders a plan.
    pub fn new(plan: &ServicePlan, ipv6: bool) -> Tables {
        let (_, whole) = State::whole(ipv6, plan);
        let fixed = chains::fixed(ipv6).into_iter().map(|(name, chain)| (name, chain.rules));
        let own = whole.chains.into_iter().filter_map(|(name, rules)| Some((name, rules?)));
        let elements = whole.elements.into_iter().map(|((map, node), elements)| {
            let elements = elements.new.into_iter().map(|element| (element.key, element.data));
            (map.name(node).to_owned(), elements.collect())
        });
        Tables {
            chains: fixed.chain(own).collect(),
            nets: whole.nets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect(),
            maps: elements.collect(),
            ipv6,
        }
    }

    /// Every way that a packet may go on a node whose own addresses are `own`; clients that are remembered are not
    /// known here.
    pub fn walk(&self, packet: &Packet, own: &BTreeSet<IpAddr>) -> Result<Vec<Walk>, Unknown> {
        let first = self.walk_once(packet, own, 0)?;
        let draws = first.one_of.min(DRAWS);
        let rest = (1..draws).map(|draw| self.walk_once(packet, own, draw));
        std::iter::once(Ok(first)).chain(rest).collect()
    }

    fn walk_once(&self, packet: &Packet, own: &BTreeSet<IpAddr>, draw: u32) -> Result<Walk, Unknown> {
        let mut machine = Machine {
            tables: self,
            packet: packet.clone(),
            local: own.contains(&packet.from),
            mark: 0,
            registers: [0; 64],
            draw,
            one_of: 1,
            translated: false,
            masqueraded: false,
            steps: Vec::new(),
        };
        let hook = if machine.local { "output" } else { "prerouting" };
        let verdict = match machine.chain(hook, 0)? {
            Flow::Decided(verdict) => verdict,
            Flow::On => Verdict::Passed,
        };
        // What the node is led to itself leaves it nowhere.
        if let Verdict::Led { to, .. } = verdict
            && !own.contains(&to.ip())
        {
            machine.packet.to = to;
            machine.translated = true;
            machine.chain("postrouting", 0)?;
        }
        let verdict = match verdict {
            Verdict::Led { to, .. } => Verdict::Led { to, masqueraded: machine.masqueraded },
            other => other,
        };
        Ok(Walk { verdict, steps: machine.steps, one_of: machine.one_of })
    }
}

/// How it goes on behind a chain.
enum Flow {
    /// In the calling chain.
    On,
    /// Not at all.
    Decided(Verdict),
}

/// How it goes on behind an expression.
enum Next {
    /// With the next of its rule.
    Expression,
    /// With the next rule.
    Rule,
    Jump(String),
    Goto(String),
    Return,
    Decided(Verdict),
}

struct Machine<'t> {
    tables: &'t Tables,
    packet: Packet,
    local: bool,
    mark: u32,
    registers: [u8; 64],
    draw: u32,
    one_of: u32,
    translated: bool,
    masqueraded: bool,
    steps: Vec<Step>,
}

impl Machine<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> Result<Flow, Unknown> {
        let unknown = |what: String| Unknown { chain: name.to_owned(), what };
        let tables = self.tables;
        let rules = tables.chains.get(name).ok_or_else(|| unknown("there is no such chain".into()))?;
        if depth > DEPTH {
            return Err(unknown("chains jump too deep".into()));
        }
        for rule in rules {
            match self.rule(rule).map_err(unknown)? {
                None => {}
                Some(next) => {
                    let comment = Some(&rule.comment).filter(|comment| !comment.is_empty());
                    let text = || rule.exprs.iter().map(Expr::to_string).collect::<Vec<_>>().join(" ");
                    let rule = comment.cloned().unwrap_or_else(text);
                    self.steps.push(Step { chain: name.to_owned(), rule });
                    match next {
                        Next::Expression | Next::Rule => {}
                        Next::Return => return Ok(Flow::On),
                        Next::Decided(verdict) => return Ok(Flow::Decided(verdict)),
                        Next::Goto(chain) => return self.chain(&chain, depth + 1),
                        Next::Jump(chain) => {
                            if let Flow::Decided(verdict) = self.chain(&chain, depth + 1)? {
                                return Ok(Flow::Decided(verdict));
                            }
                        }
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    /// What a rule does; `None` where it does not match.
    fn rule(&mut self, rule: &Rule) -> Result<Option<Next>, String> {
        for expr in &rule.exprs {
            match self.expression(expr)? {
                Next::Expression => {}
                Next::Rule => return Ok(None),
                other => return Ok(Some(other)),
            }
        }
        Ok(Some(Next::Expression))
    }

    fn expression(&mut self, expr: &Expr) -> Result<Next, String> {
        let when = |matches| if matches { Next::Expression } else { Next::Rule };
        Ok(match expr {
            Expr::Address { side, net, negate } => when(net.contains(&self.address(*side)) != *negate),
            Expr::AddressIn { side, set, negate, .. } => {
                when(self.is_in(set, self.address(*side))? != *negate)
            }
            Expr::Protocol { number, negate } => when((self.packet.protocol.number() == *number) != *negate),
            Expr::Mark { value, mask } => when(self.mark & mask == *value),
            Expr::LocalSource => when(self.local),
            Expr::State(_) => Next::Rule,
            Expr::Status(bits) => when(self.translated && bits & TRANSLATED != 0),
            Expr::Load { at, field } => {
                self.load(*at, *field);
                Next::Expression
            }
            Expr::Lookup { at, set, negate } => when(self.find(set, *at)?.is_some() != *negate),
            Expr::Map { at, map, to } => match self.find(map, *at)? {
                Some(Datum::Fields(data)) => {
                    let (from, data) = (usize::from(*to) * 4, *data);
                    let data = data.as_slice();
                    let room =
                        self.registers.get_mut(from..from + data.len()).ok_or("a map's data do not fit")?;
                    room.copy_from_slice(data);
                    Next::Expression
                }
                Some(_) => return Err(format!("map {map} has other data")),
                None => Next::Rule,
            },
            Expr::VerdictMap { at, map } => match self.find(map, *at)? {
                Some(Datum::Goto(chain)) => Next::Goto(chain.to_string()),
                Some(Datum::Jump(chain)) => Next::Jump(chain.to_string()),
                Some(_) => return Err(format!("map {map} has other verdicts")),
                // Nothing is done, and the rule is at its end.
                None => Next::Rule,
            },
            // What packets teach is not known here.
            Expr::Change { change: Change::Update | Change::Delete, .. } => Next::Expression,
            Expr::DnatTo { at, ipv6 } => {
                let to = self.socket(*at, *ipv6).ok_or("a destination is no address")?;
                Next::Decided(Verdict::Led { to, masqueraded: false })
            }
            Expr::SetMark { mask, xor } => {
                self.mark = self.mark & mask ^ xor;
                Next::Expression
            }
            Expr::Masquerade { .. } => {
                self.masqueraded = true;
                Next::Decided(Verdict::Passed)
            }
            Expr::Reject { .. } => Next::Decided(Verdict::Rejected),
            Expr::Drop => Next::Decided(Verdict::Dropped),
            Expr::Accept => Next::Decided(Verdict::Passed),
            Expr::Return => Next::Return,
            Expr::Jump(chain) => Next::Jump(chain.clone()),
            Expr::Goto(chain) => Next::Goto(chain.clone()),
            Expr::Counter => Next::Expression,
            other => return Err(format!("nothing is known of `{other}`")),
        })
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.packet.from,
            Side::Destination => self.packet.to.ip(),
        }
    }

    fn is_in(&self, set: &str, address: IpAddr) -> Result<bool, String> {
        if let Some(nets) = self.tables.nets.get(set) {
            return Ok(nets.elements().iter().any(|net| net.contains(&address)));
        }
        let key = Bytes::EMPTY.address(address);
        // A set without elements is not among what is rendered.
        Ok(self.tables.maps.get(set).is_some_and(|set| set.contains_key(&key)))
    }

    fn load(&mut self, at: u8, field: Field) {
        let bytes = match field {
            Field::Address { side, .. } => Bytes::EMPTY.address(self.address(side)),
            Field::Protocol => Bytes::EMPTY.protocol(self.packet.protocol.number()),
            Field::Port(Side::Destination) => Bytes::EMPTY.port(self.packet.to.port()),
            // Nobody asks for the client's port.
            Field::Port(Side::Source) => Bytes::EMPTY.port(0),
            Field::Mark => Bytes::EMPTY.mark(self.mark),
            Field::Random { modulus, offset } => {
                self.one_of = modulus.max(1);
                Bytes::EMPTY.mark(offset + self.draw % self.one_of)
            }
        };
        let from = usize::from(at) * 4;
        if let Some(room) = self.registers.get_mut(from..from + bytes.as_slice().len()) {
            room.copy_from_slice(bytes.as_slice());
        }
    }

    /// What a map has for the key in the registers from `at` on. All keys of a map are of one length.
    fn find(&self, map: &str, at: u8) -> Result<Option<&Datum>, String> {
        let Some(elements) = self.tables.maps.get(map) else { return Ok(None) };
        let Some(length) = elements.keys().next().map(|key| key.as_slice().len()) else { return Ok(None) };
        let from = usize::from(at) * 4;
        let key = self
            .registers
            .get(from..from + length)
            .ok_or_else(|| format!("the key of {map} does not fit"))?;
        Ok(elements.iter().find(|(known, _)| known.as_slice() == key).map(|(_, data)| data))
    }

    fn socket(&self, at: u8, ipv6: bool) -> Option<SocketAddr> {
        let from = usize::from(at) * 4;
        let width = if ipv6 { 16 } else { 4 };
        let address = self.registers.get(from..from + width)?;
        let ip: IpAddr = match ipv6 {
            true => <[u8; 16]>::try_from(address).ok()?.into(),
            false => <[u8; 4]>::try_from(address).ok()?.into(),
        };
        let port = self.registers.get(from + width..from + width + 2)?;
        (ipv6 == self.tables.ipv6).then_some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
    }
}
