//! UDP's flows: which client has which, and when one has been idle for too long. Knows no socket
//! and reads no clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Entries of flows that are gone which may wait for their time.
const SPARE: usize = 1024;

/// Flows by key, each with what the caller keeps for it.
#[derive(Debug)]
pub(super) struct Flows<K, V> {
    idle: Duration,
    by_key: HashMap<K, u32>,
    slots: Vec<Option<Flow<K, V>>>,
    free: Vec<u32>,
    serial: u32,
    /// When each flow is looked at next; later than it was used last, so that traffic moves nothing.
    due: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

/// A flow, never another one later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FlowId {
    pub slot: u32,
    pub serial: u32,
}

#[derive(Debug)]
struct Flow<K, V> {
    key: K,
    serial: u32,
    used: Instant,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Flows<K, V> {
    /// Flows that end when nothing came through for `idle`.
    pub(super) fn new(idle: Duration) -> Flows<K, V> {
        Flows { idle, by_key: HashMap::new(), slots: vec![], free: vec![], serial: 0, due: BinaryHeap::new() }
    }

    /// The flow of `key`.
    pub(super) fn find(&self, key: &K) -> Option<FlowId> {
        let slot = *self.by_key.get(key)?;
        let serial = self.slots[slot as usize].as_ref()?.serial;
        Some(FlowId { slot, serial })
    }

    /// What the next flow will be known by.
    pub(super) fn next_id(&self) -> FlowId {
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        FlowId { slot, serial: self.serial.wrapping_add(1) }
    }

    /// Adds a flow of a key that has none.
    pub(super) fn add(&mut self, key: K, value: V, now: Instant) -> FlowId {
        let id = self.next_id();
        self.serial = id.serial;
        let flow = Some(Flow { key: key.clone(), serial: id.serial, used: now, value });
        match self.free.pop() {
            Some(slot) => self.slots[slot as usize] = flow,
            None => self.slots.push(flow),
        }
        self.by_key.insert(key, id.slot);
        if self.due.len() > self.by_key.len() * 2 + SPARE {
            let slots = &self.slots;
            let lives = |id: &FlowId| slots[id.slot as usize].as_ref().is_some_and(|f| f.serial == id.serial);
            self.due.retain(|Reverse((_, id))| lives(id));
        }
        self.due.push(Reverse((now + self.idle, id)));
        id
    }

    /// Something comes through a flow: what belongs to it, if it is still there.
    pub(super) fn touch(&mut self, id: FlowId, now: Instant) -> Option<(&K, &V)> {
        let flow = self.slots.get_mut(id.slot as usize)?.as_mut().filter(|flow| flow.serial == id.serial)?;
        flow.used = now;
        Some((&flow.key, &flow.value))
    }

    /// Ends a flow.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<(K, V)> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let flow = slot.take_if(|flow| flow.serial == id.serial)?;
        self.by_key.remove(&flow.key);
        self.free.push(id.slot);
        Some((flow.key, flow.value))
    }

    /// Ends the flows that `keep` does not want, and says how many.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) -> usize {
        let ids = self.slots.iter().enumerate().filter_map(|(slot, flow)| {
            let flow = flow.as_ref()?;
            (!keep(&flow.key, &flow.value)).then_some(FlowId { slot: slot as u32, serial: flow.serial })
        });
        let ids: Vec<FlowId> = ids.collect();
        for id in &ids {
            self.remove(*id);
        }
        ids.len()
    }

    /// Ends those that have been idle for too long, and says how many.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let mut ended = 0;
        while let Some(Reverse((due, id))) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= now)
        {
            self.due.pop();
            let used = self.slots.get(id.slot as usize).and_then(Option::as_ref);
            let Some(used) = used.filter(|flow| flow.serial == id.serial).map(|flow| flow.used) else {
                continue;
            };
            if used + self.idle > due {
                self.due.push(Reverse((used + self.idle, id)));
            } else {
                self.remove(id);
                ended += 1;
            }
        }
        ended
    }

    /// Ends the one that was idle for longest.
    pub(super) fn end_oldest(&mut self) -> Option<(K, V)> {
        while let Some(Reverse((due, id))) = self.due.pop() {
            let flow = self.slots.get(id.slot as usize).and_then(Option::as_ref);
            match flow.filter(|flow| flow.serial == id.serial).map(|flow| flow.used + self.idle) {
                Some(later) if later > due => self.due.push(Reverse((later, id))),
                Some(_) => return self.remove(id),
                None => {}
            }
        }
        None
    }

    /// When [`expire`](Self::expire) may have something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a plain map of who was used when.
        #[test]
        fn a_flow_lives_exactly_until_it_was_idle_for_long_enough(
            steps in prop::collection::vec((0u8..8, 0u64..15, any::<bool>()), 1..100)
        ) {
            let idle = Duration::from_secs(10);
            let mut flows: Flows<u8, ()> = Flows::new(idle);
            let mut plain: HashMap<u8, Instant> = HashMap::new();
            let mut now = Instant::now();
            for (key, seconds, remove) in steps {
                now += Duration::from_secs(seconds);
                let before = plain.len();
                plain.retain(|_, used| *used + idle > now);
                prop_assert_eq!(flows.expire(now), before - plain.len());
                prop_assert!(flows.next_due().is_none_or(|due| due > now));
                match flows.find(&key) {
                    Some(id) if remove => {
                        flows.remove(id);
                        prop_assert!(flows.touch(id, now).is_none());
                        prop_assert!(plain.remove(&key).is_some());
                    }
                    Some(id) => {
                        prop_assert!(flows.touch(id, now).is_some());
                        prop_assert!(plain.insert(key, now).is_some());
                    }
                    None => {
                        let expected = flows.next_id();
                        prop_assert_eq!(flows.add(key, (), now), expected);
                        prop_assert!(plain.insert(key, now).is_none());
                    }
                }
            }
            prop_assert!(flows.slots.len() <= 8);
            // What is left ends in the order of its use.
            let mut left: Vec<Instant> = plain.values().copied().collect();
            left.sort();
            for used in left {
                let ended = flows.end_oldest().map(|(key, ())| plain[&key]);
                prop_assert_eq!(ended, Some(used));
            }
            prop_assert!(flows.end_oldest().is_none());
        }
    }
}
