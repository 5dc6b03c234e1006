//! Chained plugins: each adds to what the plugins before it made, and answers with their result.

pub(crate) mod bandwidth;
pub(crate) mod firewall;
pub(crate) mod portmap;
pub(crate) mod sbr;
pub(crate) mod tuning;
pub(crate) mod vrf;

use sha2::{Digest, Sha512};
use weft_kernel::{Link, Netlink, Netns, Op};

use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;
use crate::sandbox;

/// `prefix` and as many hex digits of SHA-512 over `text` as make `length` bytes: how the
/// reference plugins name links and chains, so that a DEL finds them without any state.
pub(crate) fn hashed_name(prefix: &str, text: &str, length: usize) -> String {
    let digits = Sha512::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{prefix}{digits}").chars().take(length).collect()
}

/// The container's namespace for a DEL, which has nothing to do where there is none any more.
fn netns_if_there(call: &Call) -> Option<Netns> {
    sandbox::open(call.args.netns.as_ref()?).ok()
}

/// The container's interface, which a plugin before made.
fn interface(call: &Call, pod: &mut Netlink) -> Result<Link, CniError> {
    let missing = || {
        let name = &call.args.ifname;
        let message = format!(
            "environment variable CNI_IFNAME: there is no {name:?} in the container: put this plugin behind the one that makes it"
        );
        CniError::new(code::INVALID_ENVIRONMENT, message)
    };
    pod.link(&call.args.ifname)?.ok_or_else(missing)
}

/// Does all of `ops`. When one fails, those that were done are undone as `inverse` says, the
/// last first.
fn all_or_nothing(
    netlink: &mut Netlink,
    ops: &[Op],
    inverse: impl Fn(&Op) -> Option<Op>,
) -> Result<(), CniError> {
    let results = netlink.batch(ops);
    let Some(failed) = results.iter().position(Result::is_err) else { return Ok(()) };
    let done = ops.iter().zip(&results).rev().filter(|(_, result)| result.is_ok());
    let undo: Vec<Op> = done.filter_map(|(op, _)| inverse(op)).collect();
    netlink.batch(&undo);
    results.into_iter().nth(failed).unwrap_or(Ok(())).map_err(CniError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference() {
        // printf netc1 | sha512sum
        assert_eq!(hashed_name("bwp", "netc1", 15), "bwp623e1c388032");
        assert_eq!(hashed_name("CNI-", "netc1", 28).len(), 28);
    }
}
