//! What is answered to neighbours that ask for an address, or claim one.

use std::net::{IpAddr, Ipv4Addr};

use weft_announce::arp::Arp;
use weft_announce::ndp::{self, Neighbour};
use weft_model::Mac;

use super::conflicts::Claimant;
use super::sockets::Kind;
use super::worker::Worker;

impl Worker<'_> {
    /// Reads what neighbours say and answers them. Says whether more may wait.
    pub(super) fn read(&mut self) -> bool {
        let Some(sockets) = &self.sockets else { return false };
        let (mut arps, mut neighbours) = (Vec::new(), Vec::new());
        let mut more = sockets.drain(Kind::Arp, |packet, _| arps.extend(Arp::decode(packet)));
        more |= sockets.drain(Kind::Neighbours, |packet, received| {
            let said = Neighbour::decode(packet, received.summed);
            neighbours.extend(said.map(|said| (said, received.from)));
        });
        arps.iter().for_each(|arp| self.handle_arp(arp));
        neighbours.iter().for_each(|(said, from)| self.handle_neighbour(said, *from));
        more
    }

    fn own_mac(&self) -> Option<Mac> {
        self.link.as_ref().map(|link| link.mac)
    }

    fn handle_arp(&mut self, arp: &Arp) {
        let Some(mac) = self.own_mac().filter(|mac| *mac != arp.sender) else { return };
        let probes = arp.sender_ip == Ipv4Addr::UNSPECIFIED;
        if self.election.has(arp.sender_ip.into()) {
            self.claimed(arp.sender_ip.into(), arp.sender, true);
        } else if arp.request && self.election.has(arp.target_ip.into()) {
            if probes {
                self.claimed(arp.target_ip.into(), arp.sender, false);
            }
            self.answer(Kind::Arp, arp.sender, &arp.answer(mac).encode());
        }
    }

    fn handle_neighbour(&mut self, said: &Neighbour, from_station: Mac) {
        let Some(own) = self.own_mac().filter(|mac| *mac != from_station) else { return };
        match *said {
            Neighbour::Asks { from, mac, target } if self.election.has(target.into()) => {
                if from.is_unspecified() {
                    self.claimed(target.into(), from_station, false);
                    let answer = ndp::advertisement(target, own, None);
                    self.answer(Kind::Neighbours, ndp::group_mac(ndp::ALL_NODES), &answer);
                } else {
                    let answer = ndp::advertisement(target, own, Some(from));
                    self.answer(Kind::Neighbours, mac.unwrap_or(from_station), &answer);
                }
            }
            Neighbour::Has { target, mac } if self.election.has(target.into()) => {
                self.claimed(target.into(), mac.unwrap_or(from_station), true);
            }
            _ => {}
        }
    }

    fn answer(&self, kind: Kind, to: Mac, packet: &[u8]) {
        let sent = self.sockets.as_ref().map_or(Ok(()), |sockets| sockets.send(kind, to, packet));
        let _ = sent.inspect_err(|error| tracing::debug!("answer {to}: {error}"));
    }

    /// Somebody who is no node of the cluster has what this node has, or is about to.
    fn claimed(&mut self, address: IpAddr, mac: Mac, has: bool) {
        if self.stations.values().any(|station| *station == mac) || self.own_mac() == Some(mac) {
            return;
        }
        self.untold = true;
        let host = Claimant::Host(mac);
        let now = self.now();
        if self.conflicts.claimed(address, &host, now) {
            tracing::warn!("{host} claims {address}, which this node has for a Service");
        }
        if has && self.conflicts.defend(address, now) {
            self.announce(address);
        }
    }
}
