//! The exchange between a container runtime and a plugin (the CNI specification, sections 2 to 5).

pub(crate) mod any_case;
pub mod args;
pub mod config;
pub(crate) mod error;
pub(crate) mod exec;
pub mod input;
pub(crate) mod plugin;
pub(crate) mod readers;
pub mod record;
pub mod result;
pub mod version;
