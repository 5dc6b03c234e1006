//! Flannel's keys in etcd: a subnet's name (the first line), then its value, or the configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_apiserver::{FlannelSubnet, read_flannel_attributes, read_flannel_settings};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let subnet: Option<FlannelSubnet> = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    if let Some(subnet) = subnet {
        assert_eq!(subnet.to_string().parse::<FlannelSubnet>().ok(), Some(subnet));
    }
    if let Ok(read) = read_flannel_attributes(value) {
        let again = read_flannel_attributes(&read.text()).expect("what we write can be read");
        assert_eq!((again.public_ip, &again.backend), (read.public_ip, &read.backend));
    }
    let Ok(settings) = read_flannel_settings(value) else { return };
    let taken: Vec<_> = subnet.iter().map(|subnet| subnet.v4.into()).collect();
    if let Ok(free) = settings.free(&taken) {
        let apart = |subnet: FlannelSubnet| !free.v4.contains(&subnet.v4) && !subnet.v4.contains(&free.v4);
        assert!(settings.fits(&free) && subnet.is_none_or(apart));
    }
});
