//! Settings that differ from those in force.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::peer::{Links, Peer, session};
use super::settings::{Neighbour, Remote, Settings};
use super::worker::{Worker, rib};
use crate::message::{Notification, Reason};
use crate::session::Session;
use crate::{Family, PerFamily};

impl Worker {
    /// Does what the difference asks for.
    pub(super) fn set(&mut self, settings: Settings, now: Duration) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.settings, settings);
        let new = self.settings.clone();
        if (before.local_as, before.id, before.cluster_id) != (new.local_as, new.id, new.cluster_id) {
            // Another speaker.
            self.remove_where(|_| true, Reason::CONFIGURATION, now);
            before.originated.keys().for_each(|prefix| self.rib.withdraw(prefix));
            self.rib.hold_back(false);
            let gone = self.rib.flush(usize::MAX).changed;
            self.tell_changes(gone);
            self.rib = rib(&new);
            self.rib.hold_back(self.hold.is_some());
            new.originated.iter().for_each(|(prefix, of)| self.rib.originate(*prefix, of.clone()));
        } else {
            for prefix in before.originated.keys().filter(|prefix| !new.originated.contains_key(prefix)) {
                self.rib.withdraw(prefix);
            }
            for (prefix, of) in
                new.originated.iter().filter(|(prefix, of)| before.originated.get(prefix) != Some(of))
            {
                self.rib.originate(*prefix, of.clone());
            }
        }
        if before.addresses != new.addresses {
            self.rib.set_addresses(new.addresses.clone());
        }
        if before.multipath != new.multipath {
            self.tell_changes(self.rib.routes().map(|(prefix, _)| *prefix).collect());
        }
        let keeps = |old: &Neighbour, new: &Neighbour| old == new || old.goes_on_as(new);
        self.remove_where(|peer| !new.neighbours.contains_key(&peer.of), Reason::DECONFIGURED, now);
        let other =
            |peer: &Peer| !new.neighbours.get(&peer.of).is_some_and(|new| keeps(&peer.neighbour, new));
        self.remove_where(other, Reason::CONFIGURATION, now);
        let listening = self.listeners.set(&self.poll, &new);
        let numbers: Vec<u32> = self.peers.keys().copied().collect();
        for number in numbers {
            self.change(number, before.addresses != new.addresses || before.next_hop != new.next_hop, now);
        }
        for (name, neighbour) in &new.neighbours {
            if let Remote::Address { ip, .. } = neighbour.remote
                && !self.peers.values().any(|peer| peer.of == *name)
            {
                self.add(name.clone(), name.clone(), ip, neighbour.clone(), now);
            }
        }
        self.hungry = true;
        self.watch(now);
        listening
    }

    /// A session goes on by what the settings say now.
    fn change(&mut self, number: u32, otherwise: bool, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Some(new) = self.settings.neighbours.get(&peer.of) else { return };
        if peer.neighbour == *new && !otherwise {
            return;
        }
        let old = std::mem::replace(&mut peer.neighbour, new.clone());
        self.watch.outdated |= old.bfd != new.bfd;
        let config = peer.rib_peer(&self.settings, peer.terms());
        self.rib.configure(peer.rib, config);
        let takes = old.import != peer.neighbour.import || old.max_prefixes != peer.neighbour.max_prefixes;
        if (takes || otherwise) && peer.up.is_some() {
            let families = peer.session.terms().map(|terms| terms.families).unwrap_or_default();
            let spoken = Family::ALL.into_iter().filter(|family| families[*family]);
            let asked: Vec<bool> = spoken.map(|family| peer.session.refresh(family, now)).collect();
            if asked.contains(&false) {
                peer.session.reset(&Notification::from(Reason::CONFIGURATION), now);
            }
        }
        if old.max_prefixes != peer.neighbour.max_prefixes && peer.too_many.take().is_some() {
            peer.session.start(now);
        }
        self.pump(number, now);
    }

    /// A neighbour more, at this address.
    pub(super) fn add(
        &mut self,
        name: Arc<str>,
        of: Arc<str>,
        address: IpAddr,
        neighbour: Neighbour,
        now: Duration,
    ) -> u32 {
        self.next += 1;
        let number = self.next;
        let restarted = self.hold.is_some();
        let config = session(&self.settings, &neighbour, restarted, restarted);
        let seed = self.seed ^ u64::from(number) << 32 ^ u64::from(self.settings.id.to_bits());
        let rib = self.rib.add_peer(crate::rib::Peer::new(address));
        let mut peer = Peer {
            name,
            of,
            address,
            neighbour,
            session: Session::new(config, seed),
            rib,
            links: Links::default(),
            timer: None,
            idle: now,
            up: None,
            since: now,
            established: 0,
            stale: PerFamily::default(),
            too_many: None,
            last_fall: None,
            last_error: None,
            updates: 0,
            malformed: Default::default(),
        };
        self.rib.configure(rib, peer.rib_peer(&self.settings, None));
        self.watch.outdated |= peer.neighbour.bfd.is_some();
        if self.watch.allows(&peer) {
            peer.session.start(now);
        }
        self.peers.insert(number, peer);
        self.pump(number, now);
        number
    }

    fn remove_where(&mut self, which: impl Fn(&Peer) -> bool, why: Reason, now: Duration) {
        let gone = self.peers.iter().filter(|(_, peer)| which(peer)).map(|(number, _)| *number);
        let gone: Vec<u32> = gone.collect();
        for number in gone {
            self.remove(number, &why.into(), now);
        }
    }

    /// A neighbour less.
    pub(super) fn remove(&mut self, number: u32, why: &Notification, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.session.stop(why, now);
        }
        self.pump(number, now);
        let Some(peer) = self.peers.remove(&number) else { return };
        self.watch.outdated |= peer.neighbour.bfd.is_some();
        if let Some(timer) = peer.timer {
            self.timers.remove(&(timer, number));
        }
        self.rib.remove_peer(peer.rib);
        if let Some(hold) = &mut self.hold {
            hold.gone(number);
        }
        self.hungry = true;
    }
}
