//! Services: a stable address for a set of pods.
//!
//! [`Planner`] turns Services and EndpointSlices into a table of frontends, where clients connect to, and the
//! backends that they are led to, for one node. What a Service means is settled there, once for every
//! proxy mode: a mode renders the plan into what it programs and knows no cluster.
#![forbid(unsafe_code)]

pub mod conntrack;
mod error;
pub mod iptables;
pub mod ipvs;
pub mod kube_proxy;
pub mod nftables;
mod plan;
pub mod userspace;

pub use error::Error;
pub use plan::{
    Backend, Changed, Choice, Frontend, FrontendKey, HealthCheck, Kind, Place, Planner, Policy, Refusal,
    ServiceConfig, ServicePlan,
};
