//! Namespaces with speakers in them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::PerFamily;
use weft_bgp::message::{Attributes, NextHop};
use weft_bgp::policy::Policy;
use weft_bgp::session::PeerAs;
use weft_bgp::speaker::{Filter, Neighbour, PORT, Remote, Settings, Speaker, Status, Ttl};
use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{Address, Netlink, Netns, Op};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Three namespaces in a row: `10.0.1.1` – `10.0.1.2` and `10.0.2.1` – `10.0.2.2`, and the same of `fd00:1::/64` and
/// `fd00:2::/64`. The thread is in the first.
pub(crate) struct World {
    pub(crate) first: Netns,
    pub(crate) middle: Netns,
    pub(crate) last: Netns,
    folder: tempfile::TempDir,
    _test: TestNs,
}

impl World {
    pub(crate) fn new() -> World {
        let mut test = TestNs::new();
        let (first, middle, last) = (test.ns().clone(), test.extra("middle"), test.extra("last"));
        for (a, b, number) in [(&first, &middle, 1), (&middle, &last, 2)] {
            let (left, right) = (format!("left{number}"), format!("right{number}"));
            let v4 = |host| format!("10.0.{number}.{host}/24");
            test.join((a, &left, &v4(1)), (b, &right, &v4(2)));
            for (ns, name, host) in [(a, &left, 1), (b, &right, 2)] {
                add_address(ns, name, &format!("fd00:{number}::{host}/64"));
            }
        }
        World { first, middle, last, folder: tempfile::tempdir().unwrap(), _test: test }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One more address of a link, usable at once.
pub(crate) fn add_address(ns: &Netns, link: &str, address: &str) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link(link).unwrap().unwrap().index;
    let net: IpNet = address.parse().unwrap();
    netlink.apply(&Op::AddrAdd(Address { no_dad: true, ..Address::new(index, net) })).unwrap();
}

/// Starts one of ours in a namespace.
pub(crate) fn start(ns: &Netns, settings: Settings) -> Speaker {
    ns.run(move || Speaker::start(settings)).unwrap().unwrap()
}

/// One of ours that listens on all addresses.
pub(crate) fn settings(asn: u32, id: &str) -> Settings {
    let listen = ["0.0.0.0:179", "[::]:179"].map(|at| at.parse().unwrap()).to_vec();
    Settings { listen, ..Settings::new(asn, id.parse().unwrap()) }
}

/// A neighbour that everything is taken from and told to.
pub(crate) fn neighbour(ip: &str, peer_as: u32) -> Neighbour {
    let ip: IpAddr = ip.parse().unwrap();
    let everything = Some(Arc::new(Policy::accept()));
    Neighbour {
        ttl: Ttl::Hops(64),
        families: PerFamily { ipv4: ip.is_ipv4(), ipv6: ip.is_ipv6() },
        import: everything.clone(),
        export: everything,
        ..Neighbour::new(Remote::Address { ip, port: PORT }, PeerAs::Is(peer_as))
    }
}

/// Routes of one's own with the address towards each neighbour.
pub(crate) fn originate(settings: &mut Settings, prefixes: &[&str]) {
    for prefix in prefixes {
        let prefix: IpNet = prefix.parse().unwrap();
        let nowhere: IpAddr = if prefix.addr().is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        settings.originated.insert(prefix, Attributes::new(NextHop::from(nowhere)));
    }
}

/// Waits for something that a speaker says.
pub(crate) fn until(speaker: &Speaker, what: &str, mut holds: impl FnMut(&Status) -> bool) {
    let mut last = Status::default();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(PATIENCE, what, || {
            last = speaker.status();
            holds(&last)
        });
    }));
    if let Err(panic) = waited {
        eprintln!("{last:#?}");
        std::panic::resume_unwind(panic);
    }
}

/// The prefixes of a speaker that come from this neighbour, and whether they are stale.
pub(crate) fn learnt(speaker: &Speaker, from: &str) -> Vec<(String, bool)> {
    let filter = Filter { neighbour: Some(from.into()), ..Filter::default() };
    speaker.routes(filter).into_iter().map(|route| (route.prefix.to_string(), route.stale)).collect()
}

/// Waits until it has learnt just these from a neighbour.
pub(crate) fn until_learnt(speaker: &Speaker, from: &str, prefixes: &[&str]) {
    let has = || learnt(speaker, from).into_iter().map(|(prefix, _)| prefix).eq(prefixes.iter().copied());
    until(speaker, &format!("{prefixes:?} are learnt from {from}"), |_| has());
}

/// Waits until a judge has learnt just these.
pub(crate) fn until_told(judge: &crate::judge::Judge, prefixes: &[&str]) {
    eventually(PATIENCE, &format!("the judge has learnt {prefixes:?}"), || judge.prefixes() == prefixes);
}
