//! The speaker beside BIRD, FRR and GoBGP of Debian, over real sockets, each test in namespaces of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bird;
mod frr;
mod gobgp;
mod judge;
mod limits;
mod raw;
mod reflection;
mod restarts;
mod rubbish;
mod sessions;
mod settings;
mod wire;
mod world;
