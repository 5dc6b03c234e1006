//! List and watch over the Kubernetes API → [`weft_model::Cluster`]. Kubernetes types stop here.
//!
//! [`Api`] is a thin JSON client by API path. [`Store`] keeps nodes and pods up to date: it
//! decodes only what the model has, applies a list whole or not at all, and serves the old
//! state until the new one is complete. When the API is away it keeps what it has and says
//! since when; after a restart without the API it starts from its last snapshot on disk.
#![forbid(unsafe_code)]

mod api;
mod cache;
mod decode;
mod driver;
mod error;
mod flannel;
mod heart;
mod pace;
mod page;
mod reflector;
mod snapshot;
mod store;
mod watch;

pub use api::{Api, Download, Patience};
pub use decode::{
    NETWORK_PATH, decode_block, decode_network, decode_node, decode_pod, decode_pool, decode_service,
    decode_slice,
};
pub use error::{Error, Refusal};
pub use heart::{HEARTBEAT, renew_node_lease};
pub use page::Page;
pub use snapshot::{snapshot, snapshot_with_services};
pub use store::{Freshness, Store, StoreConfig, Update};
pub use watch::{Event, EventKind, Watch};
