use std::net::IpAddr;

use weft_model::service::ServiceKey;

use super::FrontendKey;

/// What of a Service is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Two Services have one frontend; the older keeps it.
    #[error("{frontend} is that of Service {by}: give one of them another address or port")]
    Taken {
        /// What both want.
        frontend: FrontendKey,
        /// Who keeps it.
        by: ServiceKey,
    },
    /// An address that no Service can have.
    #[error("{field} {address} is {what}: choose another address")]
    AddressUnusable {
        /// The field that it is in.
        field: &'static str,
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// Clients would be led away from the API server.
    #[error("{frontend} is where the API server answers: choose another address or port")]
    ApiServer {
        /// What it wants.
        frontend: FrontendKey,
    },
    /// An external address that the configuration does not allow.
    #[error("externalIPs {address} is outside of what --external-ips allows")]
    ExternalNotAllowed {
        /// The address.
        address: IpAddr,
    },
    /// An endpoint that would lead to this node's own doors, or to many hosts.
    #[error("endpoint {address} is {what}: no connection is led there")]
    EndpointUnusable {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// More than can be programmed.
    #[error("it has {count} pairs of ports and endpoints, at most {most} are served: split it")]
    TooLarge {
        /// What it has.
        count: usize,
        /// The bound.
        most: usize,
    },
    /// A field that makes no sense.
    #[error("{0}")]
    Nonsense(std::sync::Arc<str>),
}
