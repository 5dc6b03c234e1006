//! What becomes of connections when endpoints go and agents come.

use weft_kernel::testing::eventually;
use weft_service::Changed;
use weft_service::ipvs::{Ipvs, IpvsConfig, LINK};

use super::world::{Held, World, asked, changed, datagrams, frontend, listed, plan, refused, run};
use super::{DNS, WEB, dns, web};

const SOON: std::time::Duration = std::time::Duration::from_secs(180);

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn connections_to_an_endpoint_that_went_end_by_themselves() {
    let mut world = World::new();
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    ipvs.apply(&plan(&[(web(), frontend(&[1, 2]))]), &changed(&[web()])).unwrap();
    let mut held: Vec<Held> = world.client(|| (0..4).map(|_| Held::to(WEB)).collect());
    assert!(held.iter().any(|held| held.by == 2));
    let one = plan(&[(web(), frontend(&[1]))]);
    ipvs.apply(&one, &changed(&[web()])).unwrap();
    assert!(listed().contains(&"10.244.2.2:8080=0".to_owned()), "{:?}", listed());
    assert!(held.iter_mut().all(Held::goes_on));
    world.client(|| assert!((0..6).all(|_| Held::to(WEB).by == 1)));
    // Another agent finds it again, and has nothing to do.
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    assert_eq!(ipvs.apply(&one, &Changed::default()).unwrap(), 0, "{:?}", listed());
    assert!(held.iter_mut().all(Held::goes_on));
    // Then the Service itself goes.
    let none = plan(&[]);
    let gone = Changed { cluster_ips: one.cluster_ips.keys().copied().collect(), ..changed(&[web()]) };
    ipvs.apply(&none, &gone).unwrap();
    assert!(held.iter_mut().all(Held::goes_on));
    world.client(|| assert!(refused(WEB)));
    drop(held);
    run("sh", &["-c", "ipvsadm --set 1 1 1"]);
    eventually(SOON, "virtual servers without connections are gone", || {
        ipvs.distrust();
        ipvs.apply(&none, &Changed::default()).unwrap();
        listed().is_empty()
    });
    ipvs.distrust();
    ipvs.apply(&none, &Changed::default()).unwrap();
    assert!(!run("ip", &["-o", "addr"]).contains("10.96.0.1/32"));
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn clients_are_reset_where_that_is_asked_for() {
    let mut world = World::new();
    let mut ipvs = Ipvs::open(IpvsConfig { reset_removed: true, ..IpvsConfig::default() }).unwrap();
    ipvs.apply(&plan(&[(web(), frontend(&[1]))]), &changed(&[web()])).unwrap();
    let mut held = world.client(|| Held::to(WEB));
    assert!(held.goes_on());
    let two = plan(&[(web(), frontend(&[2]))]);
    ipvs.apply(&two, &changed(&[web()])).unwrap();
    weft_service::conntrack::reconcile(&two, &changed(&[web()]).frontends, true).unwrap();
    assert!(!held.goes_on());
    world.client(|| assert_eq!(Held::to(WEB).by, 2));
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn datagrams_are_led_anew() {
    let mut world = World::new();
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    ipvs.apply(&plan(&[(dns(), frontend(&[1]))]), &changed(&[dns()])).unwrap();
    let socket = world.client(|| datagrams(DNS));
    assert_eq!(asked(&socket), Some(1));
    let mut lead = |pods: &[u8]| {
        let plan = plan(&[(dns(), frontend(pods))]);
        ipvs.apply(&plan, &changed(&[dns()])).unwrap();
        weft_service::conntrack::reconcile(&plan, &changed(&[dns()]).frontends, false).unwrap();
    };
    lead(&[2]);
    eventually(SOON, "the one socket reaches the new endpoint", || asked(&socket) == Some(2));
    lead(&[]);
    assert_eq!(asked(&socket), None);
    lead(&[3]);
    eventually(SOON, "it reaches one that came after none", || asked(&socket) == Some(3));
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn what_another_program_changed_is_put_back() {
    let mut world = World::new();
    let both = plan(&[(web(), frontend(&[1, 2])), (dns(), frontend(&[3]))]);
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    ipvs.apply(&both, &changed(&[web(), dns()])).unwrap();
    let whole = listed();
    let rules = run("nft", &["list", "ruleset"]);
    let addresses = || run("ip", &["-o", "addr", "show"]).lines().filter(|l| l.contains(LINK)).count();
    let count = addresses();
    for line in [
        "ipvsadm -C",
        "ipvsadm -d -t 10.96.0.1:80 -r 10.244.1.2:8080",
        "ipvsadm -e -t 10.96.0.1:80 -r 10.244.1.2:8080 -m -w 0",
        "ipvsadm -E -t 10.96.0.1:80 -s wlc -p 60",
        "ipvsadm -a -t 10.96.0.1:80 -r 10.244.3.2:8080 -m -w 5",
        "ip addr del 10.96.0.1/32 dev weft-ipvs0",
        "ip addr add 10.96.0.77/32 dev weft-ipvs0",
        "ip link del weft-ipvs0",
        "ip link set weft-ipvs0 down",
        "nft flush ruleset",
        "nft delete element ip weft-services services '{ 10.96.0.1 . tcp . 80 }'",
    ] {
        run("sh", &["-c", line]);
        // What goes has weight 0 at first.
        for _ in 0..2 {
            ipvs.distrust();
            ipvs.apply(&both, &Changed::default()).unwrap();
        }
        assert_eq!(listed(), whole, "{line}");
        assert_eq!(run("nft", &["list", "ruleset"]), rules, "{line}");
        assert_eq!(addresses(), count, "{line}");
        world.client(|| assert!(Held::to(WEB).goes_on(), "{line}"));
        ipvs.distrust();
        assert_eq!(ipvs.apply(&both, &Changed::default()).unwrap(), 0, "{line}");
    }
    // What is not ours stays.
    run("sh", &["-c", "ipvsadm -A -t 192.0.2.1:80 -s rr"]);
    ipvs.distrust();
    assert_eq!(ipvs.apply(&both, &Changed::default()).unwrap(), 0);
    ipvs.remove().unwrap();
    assert_eq!(listed(), ["TCP 192.0.2.1:80 rr"]);
}
