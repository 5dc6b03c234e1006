//! The container's network namespace, checked before anything is changed.

use std::io;
use std::path::Path;

use weft_kernel::Netns;

use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

/// The namespace of a call that needs one.
pub(crate) fn of(call: &Call) -> Result<Netns, CniError> {
    let missing =
        || CniError::new(code::INVALID_ENVIRONMENT, "environment variable CNI_NETNS: it is not set");
    open(call.args.netns.as_ref().ok_or_else(missing)?)
}

/// Opens CNI_NETNS: it exists, is a network namespace and not the node's own.
pub(crate) fn open(path: &Path) -> Result<Netns, CniError> {
    let shown = path.display();
    let netns = Netns::open(path).map_err(|error| match (&error, error.errno()) {
        (weft_kernel::Error::NotANetns { .. }, _) => {
            CniError::new(code::INVALID_NETNS, format!("CNI_NETNS {shown} is no network namespace"))
        }
        (_, Some(errno)) if is_absent(errno) => {
            CniError::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS {shown} does not exist"))
        }
        // A socket cannot be opened at all.
        (_, Some(errno)) if io::Error::from_raw_os_error(errno).raw_os_error() == Some(NO_DEVICE) => {
            CniError::new(code::INVALID_NETNS, format!("CNI_NETNS {shown} is no network namespace"))
        }
        _ => CniError::new(code::IO, format!("CNI_NETNS {shown}: {error}")),
    })?;
    if netns.id()? == Netns::current()?.id()? {
        let message = format!("CNI_NETNS {shown} is the node's own network namespace: give the container's");
        return Err(CniError::new(code::INVALID_NETNS, message));
    }
    Ok(netns)
}

/// ENXIO.
const NO_DEVICE: i32 = 6;

fn is_absent(errno: i32) -> bool {
    let kind = io::Error::from_raw_os_error(errno).kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
