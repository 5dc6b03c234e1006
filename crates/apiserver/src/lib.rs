//! The Kubernetes API where there is no Kubernetes: objects in one durable file, served over HTTPS
//! to `kubectl` and to Weft's own agents, and the few controllers that a bare cluster needs.
//!
//! - [`Registry`] is the middle: every object and every rule about objects; the HTTP side and the
//!   controllers are its callers.
//! - `storage` keeps objects: one writer with group commit, readers in memory, watches that miss nothing.
//! - `schema` knows the fields of every kind, built in and custom.
//! - `strategy` has the rules: defaults, validation, what an update may change.
#![forbid(unsafe_code)]

mod auth;
mod changes;
mod controllers;
mod cron;
mod error;
mod events;
mod eviction;
mod files;
mod http;
pub mod kinds;
mod label_selector;
mod options;
mod own;
mod ownership;
mod pages;
mod patch;
mod registry;
mod resource;
mod schema;
mod served;
mod server;
mod storage;
mod strategy;

pub use auth::{AuditConfig, AuthError, TokenError};
pub use controllers::{
    Attributes as FlannelAttributes, Controllers, ControllersConfig, FlannelEtcd, LeaseTimes,
    NoSubnet as NoFlannelSubnet, Settings as FlannelSettings, Subnet as FlannelSubnet,
    read_attributes as read_flannel_attributes, read_settings as read_flannel_settings,
    spawn as spawn_controllers,
};
pub use error::{ApiError, FieldError};
pub use files::sync_folder;
pub use http::Limits;
pub use http::{decode_protobuf, read_request};
pub use options::{DeleteOptions, Part, Propagation, WriteOptions};
pub use patch::Patch;
pub use patch::apply::apply_by_force;
pub use registry::{Registry, RegistryConfig};
pub use resource::{Resource, Scale};
pub use server::{Identity, Server, ServerConfig, ServerError, kubeconfig, run, write_private};
pub use storage::{Backup, EtcdConfig, Event, EventKind, Object, Place, StorageError, Watch};
