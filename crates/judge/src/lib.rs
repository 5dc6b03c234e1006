//! The judge of `weft apiserver`, for tests and benchmarks only: the real Kubernetes as a second server.
//!
//! - [`Kubernetes`] runs kube-apiserver over etcd, and its controllers where wanted, on 127.0.0.1; all of
//!   it ends with the value. The executables come from `scripts/kubernetes.sh`.
//! - [`Differences`] and [`Open`] are the lists of what a comparison may differ in; the CNI plugins' comparison
//!   with the reference has them too.
//! - [`Client`] is one plain connection to either server: it knows HTTP and JSON and no kind of object.
#![forbid(unsafe_code)]

mod certificates;
mod client;
mod kubernetes;
mod lists;
mod process;

pub use client::{Answer, Client, Lines, Request, Target};
pub use kubernetes::{Kubernetes, Parts};
pub use lists::{Differences, Open, matches};
pub use process::Process;
