//! iptables without the `iptables` program, where it is the nf_tables variant (as nearly
//! everywhere): the rules that it would write, in one transaction.
//!
//! A [`Rule`] is a plain value with two renderers: [`Rule`]'s `Display` gives the words of
//! `iptables-save`, and the kernel gets expressions as iptables-nft 1.8 writes them, xtables
//! matches and targets included, so that `iptables -S` shows it and `iptables -D` finds it. What
//! is read back, of this or an older or newer version, becomes a [`Rule`] again and is compared
//! as such.
//!
//! Where `iptables` is the legacy variant, or a rule has words that only iptables knows, one
//! `iptables-restore --noflush` gets all changes of a table ([`Xtables::apply`]).

mod arguments;
mod client;
mod compat;
mod plan;
mod raise;
mod render;
mod restore;
mod rule;
mod text;
mod variant;

pub use client::Xtables;
pub use plan::{Edit, Edits};
pub use restore::restore;
pub use rule::{AddressKind, CtState, Is, Match, PortKind, Rule, Target};
pub use variant::{Variant, older_tables};

#[cfg(test)]
mod tests;
