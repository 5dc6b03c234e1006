//! nftables by its netlink protocol, without the `nft` program.
//!
//! A [`Ruleset`] is a whole table as a plain value. [`Nft::dump`] reads one back,
//! [`Ruleset::replace_transaction`] says how to get from the one to the other, and
//! [`Nft::apply`] does it in one transaction: no packet ever meets half of it, and a table of
//! another name is never touched. [`NftMonitor`] tells when somebody changed a table;
//! [`TraceMonitor`] follows single packets through all tables.
//!
//! ```no_run
//! # use weft_kernel::nft::*;
//! # fn main() -> weft_kernel::Result<()> {
//! let pods = "10.244.0.0/16".parse().expect("a prefix");
//! let rule = Rule::new("leaves the cluster", [
//!     Expr::saddr_in("pods", false),
//!     Expr::daddr_in("pods", false).negated(),
//!     Expr::Masquerade { random_fully: true },
//! ]);
//! let wanted = Ruleset::new(Family::Ip, "weft")
//!     .with_set("pods", Set::nets(SetKey::Ipv4, [pods]))
//!     .with_base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 100, vec![rule]);
//! let mut nft = Nft::open()?;
//! let existing = nft.dump(Family::Ip, "weft")?;
//! nft.apply(&wanted.replace_transaction(existing.as_ref()))?;
//! # Ok(())
//! # }
//! ```

mod client;
mod dump;
pub(crate) mod edit;
mod elements;
mod expr;
mod field;
pub(crate) mod low;
mod low_read;
mod lower;
mod lower_registers;
mod map;
mod monitor;
mod ruleset;
mod socket;
mod trace;
mod transaction;
pub(crate) mod wire;

pub use client::Nft;
pub use dump::LiveRule;
pub use elements::Outline;
pub use expr::{Direction, Expr, Side};
pub use field::{Change, Field};
pub use map::{Bytes, Data, Datum, Element, Shape, Type};
pub use monitor::{NftEvent, NftMonitor};
pub use ruleset::{Base, Chain, ChainKind, Family, Hook, Rule, Ruleset, Set, SetKey, Table};
pub use trace::{TraceEvent, TraceKind, TraceMonitor, Verdict, decode_traces};
pub use transaction::Transaction;

#[cfg(test)]
mod element_tests;
#[cfg(test)]
mod tests;
