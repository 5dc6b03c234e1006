//! Observing the network: where a packet went, and why.
//!
//! [`trace`] sends one probe that can be recognised anywhere and watches every device of the
//! given places while it passes. What it reports was seen, not computed: frames with the
//! kernel's time, joined into hops, each with what the kernel's tables say there. [`decode`]
//! turns bytes into headers and has no I/O; [`render`] makes the text for people.

#![forbid(unsafe_code)]

mod collect;
pub mod decode;
mod path;
mod probe;
mod render;
mod report;
mod send;
mod tables;
mod trace;
mod verdict;

pub use collect::TRACE_TABLE;
pub use probe::{Place, Probe};
pub use render::render;
pub use report::{
    Decision, Direction, Encapsulation, Finding, FindingKind, Hop, LastSeen, Lost, Nat, Outcome, Protocol,
    Trace,
};
pub use trace::trace;

/// Why a trace could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A place cannot be watched.
    #[error("cannot watch {place}: {source}; tracing needs CAP_NET_ADMIN and CAP_NET_RAW there")]
    Watch {
        /// Which place.
        place: String,
        /// What the kernel said.
        source: weft_kernel::Error,
    },
    /// An index of the probe is not one of the places.
    #[error("place {0} of the probe is not among the places given")]
    NoSuchPlace(usize),
    /// A kernel request failed.
    #[error(transparent)]
    Kernel(weft_kernel::Error),
    /// The probe could not be prepared.
    #[error("cannot prepare the probe: {0}; give a source address that the sender has")]
    Send(std::io::Error),
}

/// The result of a trace.
pub type Result<T> = std::result::Result<T, Error>;
