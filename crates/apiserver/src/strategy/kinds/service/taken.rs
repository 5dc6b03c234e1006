//! The addresses and node ports that other Services have.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::kinds;
use crate::storage::View;
use crate::strategy::value::{int, list, text};

/// What is taken, read once and only when it is asked for.
pub(super) struct Taken<'a> {
    view: &'a View<'a>,
    own_uid: Option<String>,
    read: std::cell::OnceCell<Read>,
}

#[derive(Default)]
struct Read {
    addresses: HashSet<IpAddr>,
    ports: HashSet<i64>,
}

impl<'a> Taken<'a> {
    /// What all but the Service with this uid have.
    pub(super) fn new(view: &'a View<'a>, own_uid: Option<&str>) -> Self {
        Self { view, own_uid: own_uid.map(str::to_owned), read: std::cell::OnceCell::new() }
    }

    /// Whether another Service has the address.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.read().addresses.contains(&address)
    }

    /// Whether another Service has the node port.
    pub(super) fn has_port(&self, port: i64) -> bool {
        self.read().ports.contains(&port)
    }

    fn read(&self) -> &Read {
        self.read.get_or_init(|| {
            let mut read = Read::default();
            for service in self.view.list(&kinds::SERVICES.prefix()) {
                if service["metadata"]["uid"].as_str() != self.own_uid.as_deref() {
                    read.add(&service["spec"]);
                }
            }
            read
        })
    }
}

impl Read {
    fn add(&mut self, spec: &Value) {
        self.addresses
            .extend(list(&spec["clusterIPs"]).iter().filter_map(|a| text(a).parse::<IpAddr>().ok()));
        let ports = list(&spec["ports"]).iter().map(|p| int(&p["nodePort"]));
        self.ports.extend(ports.chain([int(&spec["healthCheckNodePort"])]).filter(|n| *n != 0));
    }
}
