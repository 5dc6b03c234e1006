//! A cluster on one machine: nodes and pods made of namespaces, and the oracle that says what
//! should be reachable.
//!
//! [`launch::up`] starts [`daemon`], whose keeper makes the underlay and the nodes, runs the API
//! server and the agents, and plays kubelet and container runtime. The machine's own network
//! namespace is never touched: all is in namespaces that vanish with the lab's first process.
//! Commands work inside a running lab by way of [`enter`].
#![forbid(unsafe_code)]

mod apiserver;
mod attended;
pub mod config;
mod conflist;
pub mod daemon;
pub mod down;
pub mod enter;
mod error;
pub mod exec;
mod hearts;
mod keeper;
mod kubeconfig;
pub mod launch;
mod liveness;
mod neighbours;
mod nodes;
pub mod places;
mod progress;
mod relay;
mod responder;
mod runtime;
pub mod state;
mod supervisor;
mod underlay;

pub mod apply;
pub mod check;
pub mod manifest;
pub mod oracle;
pub mod status;

pub use error::{Error, Result};
pub use progress::Progress;
pub use responder::WHOAMI;
