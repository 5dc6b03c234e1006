//! Sets and maps of any key: making, filling and reading them.

use std::collections::{BTreeMap, HashMap};

use super::client::Nft;
use super::map::{Bytes, Data, Datum, Element, Shape, Type, VERDICTS};
use super::ruleset::{Chain, Set, SetKey, Table};
use super::transaction::Transaction;
use super::wire::{Attributes, Body, F_CREATE, F_DUMP, msg};
use crate::Result;

/// Bytes of elements in one message: an attribute's length has 16 bits.
const FULL: usize = 60_000;
const LIST: u16 = 3;
/// `NFT_SET_*`.
const SET_ANONYMOUS: u32 = 0x1;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_DYNAMIC: u32 = 0x20;
const SET_CONCATENATED: u32 = 0x80;

impl Transaction {
    /// Adds a set or map without elements.
    pub fn add_map(&mut self, table: &Table, name: &str, shape: &Shape) {
        let mut flags = if shape.interval { SET_INTERVAL } else { 0 };
        flags |= if shape.data == Data::None { 0 } else { SET_MAP };
        flags |= if shape.dynamic { SET_DYNAMIC } else { 0 };
        flags |= if shape.timeout.is_some() { SET_TIMEOUT } else { 0 };
        let width = |types: &[Type]| types.iter().map(|t| t.width() as u32).sum();
        let mut body = Body::default();
        body.text(1, &table.name).text(2, name).be32(3, flags);
        // A single field has its own width, several are filled up to registers.
        let key = match shape.key[..] {
            [Type::Protocol] => 1,
            [Type::Port] => 2,
            _ => width(&shape.key),
        };
        body.be32(4, Type::number_of(&shape.key)).be32(5, key);
        match &shape.data {
            Data::None => {}
            Data::Verdict => {
                body.be32(6, VERDICTS);
            }
            Data::Fields(types) => {
                body.be32(6, Type::number_of(types)).be32(7, width(types));
            }
        }
        if let Some(size) = shape.size {
            body.nest(9, |description| {
                description.be32(1, size);
            });
        }
        body.be32(10, self.set_number());
        if let Some(timeout) = shape.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            body.bytes(11, &milliseconds.to_be_bytes());
        }
        self.push(table, msg::NEW_SET, F_CREATE, body, "add nft set", format!(" set {name}"));
    }

    /// Deletes a set or map that no rule refers to, with its elements.
    pub fn delete_map(&mut self, table: &Table, name: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, name);
        self.push(table, msg::DEL_SET, 0, body, "delete nft set", format!(" set {name}"));
    }

    /// Adds elements to a set or map of this shape. It must not have them with other data.
    pub fn insert<'a>(
        &mut self,
        table: &Table,
        name: &str,
        shape: &Shape,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let what = (msg::NEW_SET_ELEM, F_CREATE, "add elements to nft");
        self.fill(table, name, shape, what, elements.into_iter().map(|e| (&e.key, &e.data)));
    }

    /// Deletes elements; all of them must be there.
    pub fn remove<'a>(
        &mut self,
        table: &Table,
        name: &str,
        shape: &Shape,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) {
        let what = (msg::DEL_SET_ELEM, 0, "delete elements of nft");
        self.fill(table, name, shape, what, keys.into_iter().map(|key| (key, &Datum::None)));
    }

    fn fill<'a>(
        &mut self,
        table: &Table,
        name: &str,
        shape: &Shape,
        (kind, flags, op): (u16, u16, &'static str),
        elements: impl Iterator<Item = (&'a Bytes, &'a Datum)>,
    ) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let mut body = Body::default();
            body.text(1, &table.name).text(2, name);
            body.nest(LIST, |list| {
                while list.0.len() < FULL
                    && let Some((key, data)) = elements.next()
                {
                    write(list, key, data);
                }
            });
            self.push(table, kind, flags, body, op, format!(" set {name}"));
            self.elements_of(&shape.key);
        }
    }
}

fn write(list: &mut Body, key: &Bytes, data: &Datum) {
    list.nest(1, |element| {
        element.nest(1, |k| {
            k.bytes(1, key.as_slice());
        });
        match data {
            Datum::None | Datum::Other => {}
            Datum::Fields(fields) => {
                element.nest(2, |d| {
                    d.bytes(1, fields.as_slice());
                });
            }
            verdict => {
                let Some((code, chain)) = verdict.verdict() else { return };
                element.nest(2, |d| {
                    d.nest(2, |v| {
                        v.be32(1, code.cast_unsigned());
                        if let Some(chain) = chain {
                            v.text(2, chain);
                        }
                    });
                });
            }
        }
    });
}

/// The key of the element that the byte at `offset` of a message's attributes belongs to, as nft
/// writes it.
pub(super) fn element_at(body: &[u8], offset: usize, types: &[Type]) -> Option<String> {
    let mut at = 0;
    let list = Attributes(body).into_iter().find_map(|(kind, data)| {
        let start = at + 4;
        at += 4 + data.len().next_multiple_of(4);
        (kind == LIST).then_some((start, data))
    });
    let (mut start, list) = list?;
    for (_, element) in Attributes(list) {
        let end = start + 4 + element.len().next_multiple_of(4);
        if (start..end).contains(&offset) {
            let key = Attributes(element).nested(1).get(1).and_then(Bytes::read)?;
            return Some(key.describe(types));
        }
        start = end;
    }
    None
}

/// The same of a message's first element.
pub(super) fn first_element(body: &[u8], types: &[Type]) -> Option<String> {
    let (_, element) = Attributes(body).nested(LIST).next()?;
    Some(Attributes(element).nested(1).get(1).and_then(Bytes::read)?.describe(types))
}

fn read(data: Attributes<'_>) -> Option<Element> {
    let key = Bytes::read(data.nested(1).get(1)?)?;
    let datum = data.nested(2);
    let data = match (datum.get(1), datum.get(2)) {
        (Some(fields), _) => Datum::Fields(Bytes::read(fields)?),
        (None, Some(verdict)) => {
            let verdict = Attributes(verdict);
            verdict.be32(1).map_or(Datum::Other, |c| Datum::from_verdict(c.cast_signed(), verdict.text(2)))
        }
        (None, None) => Datum::None,
    };
    Some(Element { key, data })
}

fn shape(a: Attributes<'_>) -> Shape {
    let flags = a.be32(3).unwrap_or(0);
    let fields = |kind: u16| Type::from_number(a.be32(kind).unwrap_or(0));
    let data = match a.be32(6) {
        _ if flags & SET_MAP == 0 => Data::None,
        Some(VERDICTS) => Data::Verdict,
        _ => Data::Fields(fields(6)),
    };
    Shape {
        key: fields(4),
        data,
        interval: flags & (SET_INTERVAL | SET_CONCATENATED) != 0,
        dynamic: flags & SET_DYNAMIC != 0,
        timeout: a.be64(11).filter(|t| *t != 0).map(std::time::Duration::from_millis),
        size: a.nested(9).be32(1).filter(|size| *size != 0),
    }
}

/// A table without its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Chains and their rules by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name.
    pub maps: BTreeMap<String, Shape>,
}

impl Nft {
    /// What the table consists of, without the elements; `None` when there is none of that name.
    /// Read within [`Nft::consistent`] together with elements.
    pub fn outline(&mut self, table: &Table) -> Result<Option<Outline>> {
        let Some(chains) = self.chains_with_rules(table)? else { return Ok(None) };
        let mut body = Body::default();
        body.text(1, &table.name);
        let found =
            self.request(msg::GET_SET, F_DUMP, table.family, &body.0, &format!("sets of table {table}"))?;
        let named = |(_, data): &(u8, Vec<u8>)| {
            let a = Attributes(data);
            let ours = a.be32(3).unwrap_or(0) & SET_ANONYMOUS == 0;
            Some((a.text(2).filter(|_| ours)?, shape(a)))
        };
        Ok(Some(Outline { chains, maps: found.iter().filter_map(named).collect() }))
    }

    /// Gives each element of a set or map to `visit`, in no order.
    pub fn elements(&mut self, table: &Table, name: &str, mut visit: impl FnMut(Element)) -> Result<()> {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, name);
        let what = format!("elements of table {table} set {name}");
        self.request_each(msg::GET_SET_ELEM, F_DUMP, table.family, &body.0, &what, |_, data| {
            let elements = Attributes(data).nested(LIST);
            elements.filter_map(|(_, element)| read(Attributes(element))).for_each(&mut visit);
            true
        })
    }

    /// Whether a set or map has these elements and no others.
    pub fn holds(&mut self, table: &Table, name: &str, mut wanted: HashMap<Bytes, Datum>) -> Result<bool> {
        let mut strange = false;
        self.elements(table, name, |found| {
            strange |= wanted.remove(&found.key).as_ref() != Some(&found.data);
        })?;
        Ok(!strange && wanted.is_empty())
    }

    /// The elements of a set of addresses or prefixes.
    pub fn net_set(&mut self, table: &Table, name: &str, key: SetKey, interval: bool) -> Result<Set> {
        let ranges = self.ranges(table, name, interval)?;
        Ok(Set::from_ranges(key, interval, &ranges))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<[u8; 4]>(), 1..=11)
            .prop_map(|words| Bytes::read(words.as_flattened()).unwrap())
    }

    fn element() -> impl Strategy<Value = Element> {
        let data = prop_oneof![
            Just(Datum::None),
            bytes().prop_map(Datum::Fields),
            prop_oneof![Just(Datum::Accept), Just(Datum::Drop), Just(Datum::Return)],
            "[a-z]{1,9}".prop_map(|chain| Datum::Jump(chain.into())),
            "[a-z]{1,9}".prop_map(|chain| Datum::Goto(chain.into())),
        ];
        (bytes(), data).prop_map(|(key, data)| Element { key, data })
    }

    proptest! {
        #[test]
        fn elements_are_read_as_they_were_written(elements in proptest::collection::vec(element(), 0..20)) {
            let mut list = Body::default();
            elements.iter().for_each(|e| write(&mut list, &e.key, &e.data));
            let found: Vec<Element> = Attributes(&list.0).filter_map(|(_, e)| read(Attributes(e))).collect();
            prop_assert_eq!(found, elements);
        }

        #[test]
        fn any_bytes_are_elements_or_none(data in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..300) {
            let _ = read(Attributes(&data));
            let _ = shape(Attributes(&data));
            let _ = element_at(&data, at, &[Type::Ipv4, Type::Protocol, Type::Port]);
            if let Some(bytes) = Bytes::read(&data) {
                let _ = bytes.describe(&[Type::Ipv6, Type::Mark, Type::Other(1)]);
            }
        }
    }

    #[test]
    fn many_elements_are_messages_that_their_attributes_can_hold() {
        let table = Table::new(super::super::Family::Ip6, "weft");
        let shape = Shape::map([Type::Ipv6, Type::Mark], [Type::Ipv6, Type::Port]);
        let element = |i: u32| {
            let key = Bytes::EMPTY.address([7; 16].into()).mark(i);
            Element { key, data: Datum::Fields(Bytes::EMPTY.address([9; 16].into()).port(80)) }
        };
        let elements: Vec<Element> = (0..5000).map(element).collect();
        let mut transaction = Transaction::default();
        transaction.insert(&table, "endpoints", &shape, &elements);
        assert!(transaction.steps.len() > 1);
        let mut found = Vec::new();
        for step in &transaction.steps {
            assert!(step.body.len() < usize::from(u16::MAX));
            found.extend(
                Attributes(&step.body).nested(LIST).filter_map(|(_, element)| read(Attributes(element))),
            );
        }
        assert_eq!(found, elements);
        let last = &transaction.steps[0].body;
        let described = element_at(last, last.len() - 1, &shape.key).unwrap();
        assert!(described.starts_with("707:707:707:707:707:707:707:707 . "), "{described}");
        assert_eq!(element_at(last, 0, &shape.key), None);
    }
}
