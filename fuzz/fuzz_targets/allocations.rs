//! A folder of host-local with anything in it → allocations that give nothing twice and free nothing
//! of another's.
#![no_main]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use weft_ipam::host_local::{Attachment, Store, owner_of};
use weft_ipam::range::{Pool, RangeSpec};

/// What the bytes may be the content of: `@` before the key of a container.
const NAMES: &[&str] = &[
    "10.9.0.2",
    "10.9.0.3",
    "10.9.0.4",
    "10.9.0.5",
    "last_reserved_ip.0",
    "lock",
    ".weft/id/@a",
    ".weft/id/@b",
    ".weft/intent/@a",
    ".weft/intent/@b",
    ".weft/boot",
    ".weft/new",
    ".weft/aside",
];

fn eth0(container_id: &str) -> Attachment<'_> {
    Attachment { container_id, ifname: "eth0" }
}

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        base.join(format!("weft-fuzz-{}", std::process::id()))
    })
}

fuzz_target!(|data: &[u8]| {
    let network = folder().join("net");
    fs::remove_dir_all(&network).ok();
    for part in [".weft/id", ".weft/intent"] {
        fs::create_dir_all(network.join(part)).expect("a folder");
    }
    // Each file: its number, its length, its content.
    let mut rest = data;
    while let [name, length, content @ ..] = rest {
        let content_length = usize::from(*length).min(content.len());
        let name = NAMES[usize::from(*name) % NAMES.len()];
        let name = name.replace("@a", &eth0("a").key()).replace("@b", &eth0("b").key());
        fs::write(network.join(name), &content[..content_length]).expect("a file");
        rest = &content[content_length..];
    }
    let held = |ip: &IpAddr| fs::read(network.join(ip.to_string())).unwrap_or_default();
    let all: Vec<IpAddr> = (1..7).map(|n| IpAddr::from([10, 9, 0, n])).collect();
    let before: Vec<Vec<u8>> = all.iter().map(held).collect();
    let subnet = RangeSpec { subnet: "10.9.0.0/29".into(), ..RangeSpec::default() };
    let pool = Pool::new(&[vec![subnet]]).expect("a pool");
    let store = Store::open(folder(), "net").expect("a folder");
    let mut given = Vec::new();
    for id in ["a", "b", "c"] {
        if let Ok(made) = store.reserve(eth0(id), &pool, &[], &|_| true) {
            let ip = made.assignments()[0].address.addr();
            let at = all.iter().position(|one| *one == ip).expect("of the range");
            assert!(before[at].is_empty(), "{ip} is given again");
            assert!(!given.contains(&ip), "{ip} is given twice");
            given.push(ip);
            made.commit().expect("nobody else removes the intent");
            assert_eq!(store.held(eth0(id)).expect("readable"), [ip]);
        }
    }
    for id in ["a", "b", "c"] {
        let before: Vec<Vec<u8>> = all.iter().map(held).collect();
        store.release(eth0(id), Some(&pool)).expect("a release succeeds");
        for (ip, content) in all.iter().zip(before) {
            let owner = owner_of(&content).map(|(owner, _)| owner.to_owned());
            assert!(
                held(ip) == content || owner.as_deref() == Some(id),
                "{ip} of {owner:?} was freed for {id}"
            );
        }
        assert!(store.held(eth0(id)).expect("readable").is_empty());
    }
    let _ = (store.owners(), store.exhausted(&pool), store.retain(&|_, _| false));
});
