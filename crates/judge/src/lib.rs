//! The judge, for tests and benchmarks only: the real Kubernetes as a second server, the real kube-proxy as a
//! second proxy.
//!
//! - [`Kubernetes`] runs kube-apiserver over etcd, and its controllers where wanted, on 127.0.0.1; all of
//!   it ends with the value. The executables come from `scripts/kubernetes.sh`.
//! - [`KubeProxy`] runs kube-proxy in the calling thread's network namespace, over [`Objects`] of the test.
//! - [`Differences`] and [`Open`] are the lists of what a comparison may differ in; the CNI plugins' comparison
//!   with the reference has them too.
//! - [`Client`] is one plain connection to either server: it knows HTTP and JSON and no kind of object.
#![forbid(unsafe_code)]

mod certificates;
mod client;
mod kubernetes;
mod lists;
mod objects;
mod process;
mod proxy;

pub use client::{Answer, Client, Lines, Request, Target};
pub use kubernetes::{Kubernetes, Parts};
pub use lists::{Differences, Open, matches};
pub use objects::Objects;
pub use process::Process;
pub use proxy::{KubeProxy, ProxyMode};
