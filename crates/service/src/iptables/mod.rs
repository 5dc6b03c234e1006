//! Services by iptables, in kube-proxy's chains: what a node's other tools read there, they find.
//!
//! ```text
//! PREROUTING, OUTPUT ─▶ KUBE-SERVICES ─▶ KUBE-SVC-… ─▶ KUBE-SEP-… DNAT
//!                        │    │  └─ KUBE-FW-… (source ranges) ─┐
//!                        │    └──────────▶ KUBE-EXT-… ◀────────┘ ─▶ KUBE-SVC-… or KUBE-SVL-… (this node's)
//!                        └─ KUBE-NODEPORTS ──▲
//! ```
//!
//! [`chains`] renders one port of a Service, [`fixed`] what does not depend on Services, both as
//! `iptables-save` prints it, so that what is there compares equal to what should be: an agent that starts anew
//! changes only what differs. [`tables`] holds both and makes the difference, whole chains, into a script;
//! [`programs`] has `iptables-restore` do it. A change of one Service's endpoints writes that Service's chains
//! alone. The cost of a connection's first packet grows with the number of Services: that is the layout's.

mod chains;
mod fixed;
mod names;
mod pieces;
mod programs;
mod rules;
mod tables;

use tracing::{debug, warn};
use weft_kernel::nft::{self, Family, Nft, NftEvent};
use weft_kernel::xtables::{self, Variant};

use crate::Error;
use crate::plan::{Changed, ServicePlan};
pub use fixed::CLUSTER_IPS;
use fixed::{CANARY, CANARY_TEXT, JUMPS, WANTED_JUMPS};
use programs::Programs;
use tables::{Table, Tables};

/// With more chains iptables-nft takes too long to read them again and again: seconds for 40,000.
const MANY: usize = 4000;

/// Services in iptables and ip6tables of the network namespace of the threads that call it. Its calls start
/// programs and may wait for iptables' lock, for seconds: they belong on a thread of their own.
#[derive(Debug)]
pub struct Iptables {
    families: [One; 2],
    /// Whether somebody else changed the tables.
    touched: bool,
    /// Whether the plan is yet to be seen.
    fresh: bool,
}

#[derive(Debug)]
struct One {
    tables: Tables,
    programs: Programs,
    /// By which the nf_tables variant's rules are written; none before the first, and after one that failed.
    nft: Option<Nft>,
    /// Whether `tables` knows what is there.
    known: bool,
}

impl Iptables {
    /// With the iptables that the host uses, in the calling thread's network namespace.
    pub fn open() -> Result<Iptables, Error> {
        let variant = programs::detect();
        if variant.program.is_none() {
            let said =
                "it is not installed (Debian: iptables); install it or choose another proxy".to_owned();
            return Err(Error::Program { program: "iptables".to_owned(), said });
        }
        Ok(Iptables::with(variant))
    }

    /// With a given variant.
    pub fn with(variant: Variant) -> Iptables {
        let one = |ipv6, family| One {
            tables: Tables::new(ipv6),
            programs: Programs { variant: variant.clone(), family },
            nft: None,
            known: false,
        };
        Iptables { families: [one(false, Family::Ip), one(true, Family::Ip6)], touched: false, fresh: true }
    }

    /// Which iptables it is.
    pub fn variant(&self) -> &Variant {
        &self.families[0].programs.variant
    }

    /// Writes what changed in the plan since the last call that succeeded, and says how many chains and rules of
    /// iptables' own chains that were. Where it does not know what is there, of an agent before or of kube-proxy, it
    /// reads it and writes what differs.
    pub fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        let all = self.fresh.then(|| Changed {
            frontends: plan.frontends.keys().copied().collect(),
            cluster_ips: plan.cluster_ips.keys().copied().collect(),
            rest: true,
        });
        self.fresh = false;
        let changed = all.as_ref().unwrap_or(changed);
        self.families.iter_mut().for_each(|one| one.tables.update(plan, changed));
        if std::mem::take(&mut self.touched) && !self.is_intact() {
            self.families.iter_mut().for_each(|one| one.known = false);
        }
        let (mut count, mut first) = (0, None);
        for one in &mut self.families {
            match one.apply() {
                Ok(written) => count += written,
                // A host without IPv6 need not have its iptables.
                Err(error) if !one.tables.is_used() => {
                    debug!("{error}");
                    one.known = true;
                    one.tables.done(true);
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(count), Err)
    }

    /// Removes all of it, what an agent before or kube-proxy left too. Other chains stay, kubelet's among them.
    pub fn remove(&mut self) -> Result<(), Error> {
        let mut first = Ok(());
        for one in &mut self.families {
            let is_used = one.tables.is_used();
            let removed = one.programs.save().and_then(|saved| {
                one.tables.observe(&saved);
                one.tables.desire_nothing();
                one.known = true;
                one.apply()
            });
            match removed {
                Err(error) if !is_used => debug!("{error}"),
                Err(error) if first.is_ok() => first = Err(error),
                _ => {}
            }
        }
        *self = Iptables::with(self.variant().clone());
        first
    }

    /// Whether the chains are still there and packets come to them: a short look that tells of flushed tables and
    /// of removed jumps, not of a single rule.
    pub fn is_intact(&self) -> bool {
        self.families.iter().filter(|one| one.tables.is_used()).all(One::is_intact)
    }

    /// Has the next [`Iptables::apply`] look whether all is intact if the event tells of another's change of iptables'
    /// tables; says whether it does. Of the legacy variant nobody tells.
    pub fn notice(&mut self, event: &NftEvent) -> bool {
        let ours = |name: &str| Table::ALL.iter().any(|table| table.name() == name);
        let touched = !self.variant().legacy
            && match event {
                NftEvent::Touched { table, port } => {
                    let we = self.families.iter().any(|one| one.nft.as_ref().map(Nft::port) == Some(*port));
                    !we && matches!(table.family, Family::Ip | Family::Ip6) && ours(&table.name)
                }
                NftEvent::Overrun => true,
                NftEvent::Committed { .. } => false,
            };
        self.touched |= touched;
        touched
    }

    /// The next [`Iptables::apply`] looks at what is there: at all of it, unless that takes iptables too long.
    pub fn distrust(&mut self) {
        self.touched = true;
        let legacy = self.variant().legacy;
        for one in self.families.iter_mut().filter(|one| legacy || one.tables.len() <= MANY) {
            one.known = false;
        }
    }
}

impl One {
    fn apply(&mut self) -> Result<usize, Error> {
        if !self.known {
            let saved = self.programs.save()?;
            self.tables.observe(&saved);
            self.known = true;
        }
        let count = self.tables.count();
        if count == 0 {
            return Ok(0);
        }
        let mut forget = true;
        match self.write(true) {
            Err(error) if self.tables.removes() && is_of_removal(&error) => {
                warn!("{error}; trying again without removing chains");
                // A program does not say whether it was for that.
                forget = matches!(error, Error::Kernel(_));
                self.write(false)?;
                self.known = true;
            }
            written => written?,
        }
        self.tables.done(forget);
        Ok(count)
    }

    /// Writes all that differs; where that was refused, some of it may be there.
    fn write(&mut self, removing: bool) -> Result<(), Error> {
        let result = match self.write_directly(&self.tables.script(removing)) {
            Ok(true) => Ok(()),
            Ok(false) => self.write_by_programs(removing),
            Err(error) => Err(error.into()),
        };
        self.known &= !matches!(result, Err(Error::Program { .. } | Error::Kernel(_)));
        result
    }

    /// All of it in one transaction, as iptables-nft would write it. Says no where that cannot be done.
    fn write_directly(&mut self, script: &str) -> weft_kernel::Result<bool> {
        if self.programs.variant.legacy {
            return Ok(false);
        }
        let mut nft = match self.nft.take() {
            Some(nft) => nft,
            None => Nft::open()?,
        };
        let done = xtables::restore(&mut nft, self.programs.family, script)?;
        self.nft = Some(nft);
        Ok(done)
    }

    fn write_by_programs(&mut self, removing: bool) -> Result<(), Error> {
        for piece in self.tables.pieces() {
            self.programs.restore(&self.tables.piece(&piece))?;
            self.tables.piece_done(piece);
        }
        self.programs.restore(&self.tables.script(removing))
    }

    fn is_intact(&self) -> bool {
        let canaries = Table::ALL.iter().map(|table| (*table, CANARY, CANARY_TEXT));
        let mut all =
            canaries.chain(JUMPS[..WANTED_JUMPS].iter().map(|jump| (jump.table, jump.from, jump.text)));
        // Without a program to be started, so that it may be asked often.
        let mut nft = if self.programs.variant.legacy { None } else { Nft::open().ok() };
        all.all(|(table, chain, text)| match &mut nft {
            Some(nft) => {
                let table = nft::Table::new(self.programs.family, table.name());
                nft.rules_mentioning(&table, chain, text).is_ok_and(|rules| !rules.is_empty())
            }
            None => self.programs.rules(table, chain).is_some_and(|rules| rules.contains(text)),
        })
    }
}

/// Whether it may be that a chain could not be removed, since somebody else's rule leads there.
fn is_of_removal(error: &Error) -> bool {
    match error {
        Error::Kernel(weft_kernel::Error::Sys { op, .. }) => *op == "delete nft chain",
        error => matches!(error, Error::Program { .. }),
    }
}

#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod tests;
