//! BFD against BIRD and FRR, each test in namespaces of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod sessions;
mod speaker;
mod there;
