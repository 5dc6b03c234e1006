//! What a node may give to its pods, as the agent writes it for `weft-cni`: one JSON file in the
//! directory of the node's allocations, read and written under that directory's lock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::number;
use crate::pools::{Choice, Write};

/// The form of the file; a reader refuses another.
pub const VERSION: u32 = 1;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// [`VERSION`].
    pub version: u32,
    /// The pools that pods of this node can have addresses of.
    pub pools: Vec<Pool>,
    /// Addresses that this node gives, in the order in which they are taken.
    pub spans: Vec<Span>,
    /// Addresses that pods of this node ask for: nobody else gets them.
    pub held: Vec<IpAddr>,
    /// What the agent has decided on and not seen done.
    pub pending: Vec<Withheld>,
    /// Pools of namespaces.
    pub choices: Vec<Names>,
    /// Which of `choices` a namespace has; one that is not here is not known yet.
    pub namespaces: BTreeMap<Arc<str>, usize>,
}

/// A decision of the agent, and what is not given meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// What the API is to be told.
    pub write: Write,
    /// Addresses that the spans leave out for it.
    pub nets: Vec<IpNet>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses.
    pub cidr: IpNet,
}

/// Consecutive addresses of one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The block.
    pub block: IpNet,
    /// The first address to give.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
}

/// [`Choice`] in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// [`Choice::automatic`].
    pub automatic: Vec<Arc<str>>,
    /// [`Choice::allowed`].
    pub allowed: Vec<Arc<str>>,
}

impl From<Choice> for Names {
    fn from(choice: Choice) -> Names {
        Names { automatic: choice.automatic, allowed: choice.allowed }
    }
}

impl Span {
    /// Whether the address is one of these.
    pub fn holds(&self, ip: &IpAddr) -> bool {
        let same = ip.is_ipv4() == self.first.is_ipv4() && ip.is_ipv4() == self.last.is_ipv4();
        same && (number(&self.first)..=number(&self.last)).contains(&number(ip))
    }
}

impl File {
    /// Reads the file; the error says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<File, String> {
        let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!(
                "its version is {}, not {VERSION}: another version of weft wrote it",
                file.version
            ));
        }
        if let Some(place) = file.namespaces.values().find(|place| **place >= file.choices.len()) {
            return Err(format!("there is no choice {place}"));
        }
        let straight = |span: &Span| span.holds(&span.first) && span.holds(&span.last);
        if !file.spans.iter().all(straight) {
            return Err("a span ends before it begins".to_owned());
        }
        Ok(file)
    }

    /// Its text.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How many families its pools have: so many addresses a pod can get.
    pub fn families(&self) -> usize {
        let has = |v4: bool| usize::from(self.pools.iter().any(|pool| pool.cidr.addr().is_ipv4() == v4));
        has(true) + has(false)
    }

    /// Notes a namespace's choice.
    pub(crate) fn note(&mut self, namespace: &Arc<str>, choice: Choice) {
        let names = Names::from(choice);
        let place = self.choices.iter().position(|known| *known == names).unwrap_or_else(|| {
            self.choices.push(names);
            self.choices.len() - 1
        });
        self.namespaces.insert(namespace.clone(), place);
    }
}
