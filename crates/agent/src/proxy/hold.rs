//! What keeps the kernel's translation at work while somebody else flushes all rules.
//!
//! The kernel translates the packets of known connections as long as any chain of NAT is there, and looks at
//! connections as long as a rule asks for them. After `nft flush ruleset` there is neither until the tables are
//! back: what is on its way meanwhile reaches the wrong socket, and its connection is reset. A table that
//! a socket owns is passed over by such a flush, and goes when the socket closes.

use weft_kernel::Result;
use weft_kernel::nft::{ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Transaction};

/// The tables' name.
const TABLE: &str = "weft-hold";
/// After all translation.
const LATE: i32 = 300;
/// `NF_CT_STATE_BIT` of an invalid packet, which no chain of NAT ever sees.
const INVALID: u32 = 1;

/// The socket that owns the tables.
#[derive(Debug)]
pub(super) struct Hold {
    _owner: Nft,
}

impl Hold {
    /// Makes the tables in the calling thread's network namespace.
    pub(super) fn open() -> Result<Hold> {
        let mut owner = Nft::open()?;
        let mut transaction = Transaction::default();
        for family in [Family::Ip, Family::Ip6] {
            let rule = Rule::new("keeps known connections translated", [Expr::State(INVALID)]);
            let name = "postrouting";
            Ruleset::new(family, TABLE)
                .with_base_chain(name, ChainKind::Nat, Hook::Postrouting, LATE, vec![rule])
                .add_to(&mut transaction, true);
        }
        owner.apply(&transaction)?;
        Ok(Hold { _owner: owner })
    }
}
