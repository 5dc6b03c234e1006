//! The file by which the agent tells weft-cni what it may give → addresses of it that nobody has, whoever
//! wrote it.
#![no_main]

use std::collections::HashSet;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use weft_ipam::pools::choose::{Request, choose};
use weft_ipam::pools::file::File;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = File::parse(data) else { return };
    assert_eq!(File::parse(&file.text()).as_ref(), Ok(&file));
    let firsts: Vec<IpAddr> = file.spans.iter().map(|span| span.first).collect();
    let mut taken: HashSet<IpAddr> = firsts.iter().step_by(2).copied().collect();
    let namespaces = file.namespaces.keys().take(4).map(|name| name.to_string());
    for namespace in namespaces.chain([String::new()]) {
        let mut request = Request { namespace, ..Request::default() };
        for wished in [None, firsts.last().copied()] {
            request.wish.ips = wished.into_iter().collect();
            let Ok(given) = choose(&file, &request, &taken, [firsts.first().copied(), None]) else { continue };
            for ip in given.iter().map(|one| one.address.addr()) {
                assert!(file.spans.iter().any(|span| span.holds(&ip)), "{ip} is not this node's");
                assert!(Some(ip) == wished || !file.held.contains(&ip), "{ip} is kept for another");
                assert!(taken.insert(ip), "{ip} is given twice");
            }
        }
    }
});
