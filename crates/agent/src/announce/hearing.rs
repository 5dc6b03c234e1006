//! What other nodes say of addresses, and those who say that they are nodes.

use std::net::IpAddr;

use weft_announce::datagram::Datagram;
use weft_announce::{Beat, Stranger};

use super::conflicts::Claimant;
use super::sockets::Kind;
use super::worker::Worker;

impl Worker<'_> {
    /// Takes in what others say. Says whether more may wait.
    pub(super) fn hear(&mut self) -> bool {
        let Some(sockets) = &self.sockets else { return false };
        let now = self.now();
        let own = (&*self.cfg.node_name, self.run);
        let mut unknown = Vec::new();
        let more = sockets.drain(Kind::Beats, |packet, received| {
            let Some(datagram) = Datagram::decode(packet, received.summed) else { return };
            let addresses = |node: &str| self.nodes.get(node).map(Vec::as_slice);
            match Beat::receive(datagram.payload, datagram.from, datagram.hop_limit, own, addresses) {
                Ok(Some(beat)) => {
                    self.stations.insert(beat.node.clone(), received.from);
                    self.election.hear(&beat, now);
                }
                Ok(None) => return,
                Err(stranger) => {
                    if stranger == Stranger::Unknown {
                        unknown.extend(Beat::decode(datagram.payload).map(|beat| (beat, datagram.from)));
                    }
                    *self.status.strangers.entry(stranger.to_string()).or_default() += 1;
                }
            }
            self.untold = true;
        });
        unknown.iter().for_each(|(beat, from)| self.hear_unknown(beat, *from));
        more
    }

    /// Hears who says that he is a node, which as far as this node knows he is not.
    fn hear_unknown(&mut self, beat: &Beat, from: IpAddr) {
        let here = self.link.as_ref().is_some_and(|link| link.nets.iter().any(|net| net.contains(&from)));
        // A node's name from another's address is a mistake or worse, whatever the API says.
        if !here || self.nodes.contains_key(&beat.node) {
            return;
        }
        let now = self.now();
        for address in self.election.hear_unknown(beat, now) {
            let who = Claimant::NoNode(beat.node.clone());
            if self.conflicts.claimed(address, &who, now) {
                tracing::warn!("{who} says that it has {address}, which this node has for a Service");
            }
            if self.conflicts.defend(address, now) {
                self.election.contested(address, now);
            }
        }
    }
}
