use super::edit::rule_body;
use super::map::Type;
use super::ruleset::{Base, Rule, Set, SetKey, Table};
use super::wire::{self, Body, F_APPEND, F_CREATE, msg};

// An attribute's length has 16 bits: elements go in messages of this many at most.
const ELEMENTS_PER_MESSAGE: usize = 1000;
const TABLE_OWNER: u32 = 0x2;
const SET_INTERVAL: u32 = 0x4;
const ELEMENT_IS_END: u32 = 0x1;

/// One change to come, and on what for the error message.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) family: u8,
    pub(super) body: Vec<u8>,
    pub(super) op: &'static str,
    pub(super) object: String,
    /// The fields of its elements' keys, where it has elements.
    pub(super) key: Vec<Type>,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub(super) steps: Vec<Step>,
    /// The generation of the rule set that the changes were thought out for.
    pub(super) generation: Option<u32>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether nothing that is there is deleted.
    pub(super) fn only_adds(&self) -> bool {
        let adds = [msg::NEW_TABLE, msg::NEW_CHAIN, msg::NEW_RULE, msg::NEW_SET, msg::NEW_SET_ELEM];
        self.steps.iter().all(|step| adds.contains(&step.kind))
    }

    /// Adds a table; nothing happens where it exists. With `owned` it vanishes when the
    /// sending socket closes.
    pub fn add_table(&mut self, table: &Table, owned: bool) {
        let mut body = Body::default();
        body.text(1, &table.name).be32(2, if owned { TABLE_OWNER } else { 0 });
        self.push(table, msg::NEW_TABLE, F_CREATE, body, "add nft table", String::new());
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: &Table) {
        let mut body = Body::default();
        body.text(1, &table.name);
        self.push(table, msg::DEL_TABLE, 0, body, "delete nft table", String::new());
    }

    /// Adds a set without elements.
    pub fn add_set(&mut self, table: &Table, name: &str, set: &Set) {
        let mut body = Body::default();
        let flags = if set.interval { SET_INTERVAL } else { 0 };
        body.text(1, &table.name).text(2, name).be32(3, flags);
        body.be32(4, set.key.number()).be32(5, width(set.key) as u32);
        body.be32(10, self.set_number());
        self.push(table, msg::NEW_SET, F_CREATE, body, "add nft set", format!(" set {name}"));
    }

    /// Adds all elements of `set` to the set `name`.
    pub fn add_elements(&mut self, table: &Table, name: &str, set: &Set) {
        let mut keys = Vec::new();
        for (first, end) in set.ranges() {
            keys.push((first, 0));
            keys.extend(end.filter(|_| set.interval).map(|end| (end, ELEMENT_IS_END)));
        }
        for chunk in keys.chunks(ELEMENTS_PER_MESSAGE) {
            let mut body = Body::default();
            body.text(1, &table.name).text(2, name);
            body.nest(3, |list| chunk.iter().for_each(|(key, flags)| element(list, set.key, *key, *flags)));
            let object = format!(" set {name}");
            self.push(table, msg::NEW_SET_ELEM, F_CREATE, body, "add elements to nft", object);
        }
    }

    /// Removes all elements of a set.
    pub fn flush_set(&mut self, table: &Table, name: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, name);
        self.push(table, msg::DEL_SET_ELEM, 0, body, "flush nft", format!(" set {name}"));
    }

    /// Adds a chain.
    pub fn add_chain(&mut self, table: &Table, name: &str, base: Option<Base>) {
        let mut body = Body::default();
        body.text(1, &table.name).text(3, name);
        if let Some(base) = base {
            body.nest(4, |hook| {
                hook.be32(1, base.hook.number()).be32(2, base.priority.cast_unsigned());
            });
            body.be32(5, u32::from(!base.drop)).text(7, base.kind.name());
        }
        self.push(table, msg::NEW_CHAIN, F_CREATE, body, "add nft chain", format!(" chain {name}"));
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let mut body = Body::default();
        rule_body(&mut body, table, chain, rule);
        let object = format!(" chain {chain} rule `{rule}`");
        self.push(table, msg::NEW_RULE, F_CREATE | F_APPEND, body, "add nft rule", object);
    }

    pub(super) fn push(
        &mut self,
        table: &Table,
        kind: u16,
        flags: u16,
        body: Body,
        op: &'static str,
        rest: String,
    ) {
        let object = format!("{table}{rest}");
        let (family, key) = (table.family.number(), Vec::new());
        self.steps.push(Step { kind, flags, family, body: body.0, op, object, key });
    }

    /// Of the last change, which has elements: the fields of their keys.
    pub(super) fn elements_of(&mut self, key: &[Type]) {
        if let Some(step) = self.steps.last_mut() {
            step.key = key.into();
        }
    }

    /// A number for a new set (NFTA_SET_ID): must be there and unique in the transaction.
    pub(super) fn set_number(&self) -> u32 {
        self.steps.len() as u32 + 1
    }

    /// The batch as bytes; the step with index `i` has the sequence number `first + 1 + i`.
    pub(super) fn encode(&self, first: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let subsystem = wire::SUBSYSTEM >> 8;
        let mut begin = Body::default();
        if let Some(generation) = self.generation {
            begin.be32(1, generation);
        }
        wire::message(&mut out, wire::BATCH_BEGIN, 0, first, 0, subsystem, &begin.0);
        let mut seq = first;
        for (i, step) in self.steps.iter().enumerate() {
            seq = seq.wrapping_add(1);
            // One acknowledgement, of the last step, says that all of it was committed.
            let ack = if i + 1 == self.steps.len() { wire::F_ACK } else { 0 };
            wire::message(&mut out, step.kind, step.flags | ack, seq, step.family, 0, &step.body);
        }
        wire::message(&mut out, wire::BATCH_END, 0, seq.wrapping_add(1), 0, subsystem, &[]);
        out
    }
}

fn element(list: &mut Body, key: SetKey, value: u128, flags: u32) {
    let bytes = value.to_be_bytes();
    list.nest(1, |e| {
        e.nest(1, |k| {
            k.bytes(1, &bytes[16 - width(key)..]);
        });
        if flags != 0 {
            e.be32(3, flags);
        }
    });
}

/// Bytes of a key.
fn width(key: SetKey) -> usize {
    if key == SetKey::Ipv4 { 4 } else { 16 }
}
