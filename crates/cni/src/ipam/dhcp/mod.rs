//! The IPAM plugin `dhcp`: it asks the daemon, which has the leases.

pub(crate) mod daemon;
pub(crate) mod gob;
mod options;
pub(crate) mod rpc;

use std::path::PathBuf;

use crate::ipam::dhcp::options::Keys;
use crate::ipam::dhcp::rpc::{ALLOCATE, Arguments, COLLECT, CallError, Client, RELEASE};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::CniResult;
use crate::sandbox;

/// What a call of the plugin needs, checked.
#[derive(Debug)]
pub(crate) struct Dhcp {
    socket: PathBuf,
    arguments: Arguments,
}

impl Dhcp {
    /// Checks the configuration of a call.
    pub(crate) fn of(call: &Call) -> Result<Dhcp, CniError> {
        let keys: Keys = call.ipam_keys()?;
        let id = options::identity(&call.args.container_id, call.conf.network()?, &call.args.ifname);
        keys.profile(&id, &call.args.extra.text)?;
        Ok(Dhcp { socket: keys.socket(), arguments: arguments(call) })
    }

    /// ADD: the lease, after the interface was made.
    pub(crate) fn add(&self) -> Result<CniResult, CniError> {
        let answer = self.client()?.call(ALLOCATE, &self.arguments).map_err(|error| self.failed(&error))?;
        rpc::result_of(&answer).ok_or_else(|| self.failed(&CallError::Unreadable))
    }

    /// CHECK: the daemon has the lease, and it is that of `expected`.
    pub(crate) fn check(&self, expected: Option<&CniResult>) -> Result<(), CniError> {
        let leased = self.add()?;
        let Some(expected) = expected else { return Ok(()) };
        match leased.ips.iter().find(|ip| !expected.ips.iter().any(|other| other.address == ip.address)) {
            None => Ok(()),
            Some(ip) => {
                let message = format!("the lease is {} now, which is not in prevResult", ip.address);
                Err(CniError::new(code::NOT_AS_MADE, message))
            }
        }
    }

    /// STATUS: the daemon is there.
    pub(crate) fn status(&self) -> Result<(), CniError> {
        let away = |error| CniError { code: code::NOT_AVAILABLE, ..error };
        self.client().map(drop).map_err(away)
    }

    /// GC: the daemon gives back what belongs to no valid attachment. The reference daemon does
    /// not know how, and one that is away will find their interfaces gone.
    pub(crate) fn gc(&self) -> Result<(), CniError> {
        let Ok(client) = self.client() else { return Ok(()) };
        match client.call(COLLECT, &self.arguments) {
            Ok(_) | Err(CallError::Refused(_) | CallError::Away(_)) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn client(&self) -> Result<Client, CniError> {
        Client::connect(&self.socket).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &CallError) -> CniError {
        let hint = match error {
            CallError::Away(_) | CallError::Broken(_) => {
                ": start it with `dhcp daemon` or `systemctl start cni-dhcp.socket`"
            }
            CallError::Refused(_) | CallError::Unreadable => "",
        };
        let socket = self.socket.display();
        CniError::new(code::TRY_AGAIN, format!("DHCP daemon at {socket}: {error}{hint}"))
    }
}

/// DEL: gives the lease back. A daemon that is away has none to give back, and when it starts
/// again it will find the interface gone.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let keys: Keys = call.ipam_keys().unwrap_or_default();
    let dhcp = Dhcp { socket: keys.socket(), arguments: arguments(call) };
    let Ok(client) = Client::connect(&dhcp.socket) else { return Ok(()) };
    match client.call(RELEASE, &dhcp.arguments) {
        Ok(_) | Err(CallError::Away(_)) => Ok(()),
        Err(error) => Err(dhcp.failed(&error)),
    }
}

/// The daemon may have another working directory, so the path of the namespace is made absolute.
fn arguments(call: &Call) -> Arguments {
    let netns =
        call.args.netns.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    Arguments {
        container_id: call.args.container_id.clone(),
        netns: netns.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        ifname: call.args.ifname.clone(),
        args: call.args.extra.text.clone(),
        config: call.raw.clone(),
    }
}

/// `dhcp` called by its own name.
pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return del(call);
    }
    let dhcp = Dhcp::of(call)?;
    match call.command {
        Command::Add => {
            sandbox::of(call)?;
            let done = answer(&dhcp.add()?);
            if done.is_err() {
                del(call).ok();
            }
            done
        }
        Command::Check => dhcp.check(call.prev_result()?.as_ref()),
        Command::Gc => match call.conf.valid_attachments {
            Some(_) => dhcp.gc(),
            None => Err(invalid("cni.dev/valid-attachments is missing: nothing was removed")),
        },
        _ => dhcp.status(),
    }
}
