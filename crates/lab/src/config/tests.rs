use super::*;

fn with(change: impl FnOnce(&mut LabConfig)) -> Result<(), ConfigError> {
    let mut config = LabConfig::default();
    change(&mut config);
    config.validate()
}

fn pods(cidrs: &[&str]) -> Result<(), ConfigError> {
    with(|c| c.pod_cidrs = cidrs.iter().map(|s| s.parse().unwrap()).collect())
}

#[test]
fn the_default_and_both_families_are_accepted() {
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(pods(&["10.244.0.0/16", "fd00:244::/56"]), Ok(()));
}

#[test]
fn names_are_dns_labels() {
    for good in ["a", "weft", "a-1", "0"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a.b", "../x", "a/b", "é", &"x".repeat(33)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn pod_cidrs_that_clash_are_refused_with_what_they_clash_with() {
    for (cidr, is) in [
        ("10.168.4.0/22", "the lab's nodes"),
        ("10.0.0.0/8", "the lab's nodes"),
        ("10.96.0.0/12", "Services"),
        ("192.0.2.0/24", "the host outside the cluster"),
        ("fd10:168::/40", "the lab's nodes"),
        ("fd00:10:96::/56", "Services"),
        ("2001:db8:1::/56", "the host outside the cluster"),
    ] {
        let error = pods(&[cidr]).unwrap_err();
        assert!(matches!(error, ConfigError::Overlap { is: told, .. } if told == is), "{cidr}: {error}");
    }
    assert_eq!(pods(&[]), Err(ConfigError::Families(0, "any family")));
    assert_eq!(pods(&["10.1.0.0/16", "10.2.0.0/16"]), Err(ConfigError::Families(2, "IPv4")));
    for cidr in ["127.0.0.0/16", "224.0.0.0/8", "169.254.0.0/16", "fe80::/16", "0.0.0.0/0", "ff00::/16"] {
        assert!(matches!(pods(&[cidr]), Err(ConfigError::NotForHosts(_))), "{cidr}");
    }
}

#[test]
fn a_pod_cidr_must_hold_a_part_for_every_node() {
    let small = with(|c| {
        c.nodes = 100;
        c.pod_cidrs = vec!["10.244.0.0/18".parse().unwrap()];
    });
    let Err(ConfigError::TooSmall { holds: 64, enough: 17, .. }) = small else { panic!("{small:?}") };
    assert!(matches!(pods(&["10.244.0.0/25"]), Err(ConfigError::TooSmall { holds: 0, enough: 22, .. })));
    assert!(with(|c| c.pod_cidrs = vec!["10.244.0.0/22".parse().unwrap()]).is_ok());
}

#[test]
fn a_narrow_hop_needs_a_router_and_both_mtus_have_bounds() {
    let mtus = |topology, underlay_mtu, hop_mtu| {
        with(|c| LabConfig { topology, underlay_mtu, hop_mtu, ..c.clone() }.clone_into(c))
    };
    assert_eq!(mtus(Topology::Racks(2), 9000, Some(1400)), Ok(()));
    assert_eq!(mtus(Topology::Flat, 9000, None), Ok(()));
    assert_eq!(mtus(Topology::Flat, 9000, Some(1400)), Err(ConfigError::NoHop));
    assert_eq!(mtus(Topology::Racks(2), 1200, None), Err(ConfigError::Mtu(1200)));
    assert_eq!(mtus(Topology::Racks(2), 9000, Some(70_000)), Err(ConfigError::Mtu(70_000)));
    let wide = ConfigError::WideHop { hop: 9000, underlay: 1500 };
    assert_eq!(mtus(Topology::Racks(2), 1500, Some(9000)), Err(wide));
}

#[test]
fn nodes_and_racks_have_bounds() {
    assert_eq!(with(|c| c.nodes = 0), Err(ConfigError::Nodes(0)));
    assert_eq!(with(|c| c.nodes = 101), Err(ConfigError::Nodes(101)));
    assert_eq!(with(|c| c.topology = Topology::Racks(4)), Err(ConfigError::Racks { racks: 4, nodes: 3 }));
    assert!(with(|c| c.topology = Topology::Racks(0)).is_err());
    assert_eq!("racks=2".parse(), Ok(Topology::Racks(2)));
    assert!("racks=x".parse::<Topology>().is_err() && "ring".parse::<Topology>().is_err());
}

#[test]
fn no_two_nodes_share_an_address_and_each_is_beside_its_gateway() {
    for topology in [Topology::Flat, Topology::Racks(1), Topology::Racks(7), Topology::Racks(100)] {
        let config = LabConfig { nodes: 100, topology, ..LabConfig::default() };
        let mut seen = std::collections::BTreeSet::new();
        for node in config.node_specs() {
            for (address, gateway) in node.addresses.iter().zip(config.gateways(node.rack)) {
                assert!(seen.insert(address.addr()), "{} twice", address.addr());
                assert_eq!(address.trunc(), gateway.trunc());
                assert_ne!(address.addr(), gateway.addr());
            }
        }
    }
    let dual = ["fd00:244::/56", "10.244.0.0/16"].map(|cidr| cidr.parse().unwrap());
    let dual = LabConfig { pod_cidrs: dual.to_vec(), ..LabConfig::default() };
    let six = LabConfig { pod_cidrs: dual.pod_cidrs[..1].to_vec(), ..dual.clone() };
    assert_eq!(
        dual.node_specs()[1].addresses,
        ["fd10:168::3/64", "10.168.0.3/24"].map(|a| a.parse().unwrap())
    );
    assert_eq!(six.node_specs()[1].addresses, ["fd10:168::3/64"].map(|a| a.parse().unwrap()));
    assert_eq!(dual.api_address().to_string(), "10.168.0.1");
    assert_eq!(six.api_address().to_string(), "fd10:168::1");
    assert_eq!(six.outside_hosts(), ["2001:db8::1".parse::<std::net::IpAddr>().unwrap()]);
    let flat = LabConfig::default().node_specs();
    assert_eq!(flat[1].addresses[0].to_string(), "10.168.0.3/24");
}
