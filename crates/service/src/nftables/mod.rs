//! Services by nftables: data and not chains. One table of each family, apart from that of the fabric.
//!
//! A map leads from address, protocol and port to the number of a way, one more from there to a chain that all
//! Services of a kind share, and that chain draws a slot and finds the endpoint in a map again. So a change of
//! the plan is a change of elements; chains come and go with the first and the last frontend of their kind.
//! Only verdicts make the kernel look through all maps that have any, and the map of ways is small: a
//! frontend's element has a number in place of the verdict.
//!
//! All of it is in chains of NAT, which a connection's first packet alone meets.

pub(crate) mod chains;
pub(crate) mod counts;
pub(crate) mod maps;
mod state;
pub(crate) mod sync;
mod walk;
pub(crate) mod way;

use weft_kernel::Netns;
use weft_kernel::nft::{Nft, NftEvent, Transaction};

use crate::{Changed, Error, ServicePlan};
use state::State;
pub use walk::{Packet, Step, Tables, Unknown, Verdict, Walk};

/// The tables' name.
pub const TABLE: &str = "weft-services";

/// The two tables, and what is in them.
#[derive(Debug)]
pub struct Nftables {
    nft: Nft,
    /// What each family's table holds, IPv4 first; `None` where the kernel has to be asked.
    known: Option<[Option<State>; 2]>,
    /// The rule set's generation at which that was so.
    generation: Option<u32>,
    /// Whether to make sure that it is so still.
    doubted: bool,
}

impl Nftables {
    /// Knows nothing yet of what is in the calling thread's network namespace: the first
    /// [`apply`](Nftables::apply) reads it, and changes what an agent before left to what is planned.
    pub fn open() -> Result<Nftables, Error> {
        Ok(Nftables { nft: Nft::open()?, known: None, generation: None, doubted: false })
    }

    /// The same in another network namespace.
    pub fn open_in(netns: &Netns) -> Result<Nftables, Error> {
        Ok(Nftables { nft: Nft::open_in(netns)?, known: None, generation: None, doubted: false })
    }

    /// Makes the tables as planned, in one transaction; `changed` is all that changed since the last call.
    /// Says how many elements, chains, maps and sets were made or removed.
    pub fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        if std::mem::take(&mut self.doubted) && self.generation != Some(self.nft.generation()?) {
            self.known = None;
        }
        match self.advance(plan, changed) {
            Ok(Some(writes)) => Ok(writes),
            // Another program was faster than its event, or a family comes or goes.
            Ok(None) | Err(_) => self.replace(plan),
        }
    }

    /// The netlink port by which events tell its changes from others'.
    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    /// Has the next [`apply`](Nftables::apply) look at what there is if the event tells of another's change of
    /// a table of ours; says whether it does.
    pub fn notice(&mut self, event: &NftEvent) -> bool {
        let other = event.is_anothers(TABLE, Some(self.nft.port()));
        if other {
            self.known = None;
        }
        other
    }

    /// Has the next [`apply`](Nftables::apply) look at what there is, unless no rule of the namespace was
    /// changed meanwhile.
    pub fn distrust(&mut self) {
        self.doubted = true;
    }

    /// Removes the tables.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.replace(&ServicePlan::default()).map(|_| ())
    }

    /// Applies the difference alone; `None` where it is not known.
    fn advance(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<Option<usize>, Error> {
        let Some(mut known) = self.known.take() else { return Ok(None) };
        let mut transaction = Transaction::default();
        let mut writes = 0;
        for (ipv6, state) in [false, true].into_iter().zip(&mut known) {
            let Some(state) = state.as_mut().filter(|_| sync::is_used(plan, ipv6)) else {
                if state.is_none() && !sync::is_used(plan, ipv6) {
                    continue;
                }
                return Ok(None);
            };
            let difference = state.advance(plan, changed);
            writes += difference.writes();
            sync::change(&mut transaction, ipv6, &sync::table(ipv6), &difference);
        }
        if !transaction.is_empty() {
            self.commit(&mut transaction)?;
        }
        self.known = Some(known);
        Ok(Some(writes))
    }

    /// Applies a difference; keeps count of the generation, as long as nobody else changes any rule.
    fn commit(&mut self, transaction: &mut Transaction) -> Result<(), Error> {
        if let Some(generation) = self.generation.take() {
            transaction.expect_generation(generation);
            match self.nft.apply(transaction) {
                Ok(()) => {
                    self.generation = Some(generation.wrapping_add(1));
                    return Ok(());
                }
                Err(error) if error.is_outdated() => transaction.expect_any_generation(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.nft.apply(transaction)?)
    }

    /// Reads what there is, and applies what differs.
    fn replace(&mut self, plan: &ServicePlan) -> Result<usize, Error> {
        self.known = None;
        let mut done = (None, 0);
        let mut before = 0;
        let changed = self.nft.change(|nft| -> Result<Transaction, Error> {
            before = nft.generation()?;
            let mut transaction = Transaction::default();
            let mut states = [None, None];
            let mut writes = 0;
            for (ipv6, state) in [false, true].into_iter().zip(&mut states) {
                let found = sync::replace(&mut transaction, nft, ipv6, plan)?;
                *state = found.0;
                writes += found.1;
            }
            done = (Some(states), writes);
            Ok(transaction)
        })?;
        self.generation = Some(before.wrapping_add(u32::from(changed)));
        self.known = done.0;
        Ok(done.1)
    }
}
