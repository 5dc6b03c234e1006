//! From the real kube-proxy in its mode ipvs to each mode of Weft's: who is connected stays so, who connects is
//! answered, and in the end nothing of kube-proxy is left.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::{Value, json};
use weft_judge::{KubeProxy, Kubernetes, ProxyMode};
use weft_kernel::nft::Nft;
use weft_kernel::testing::eventually;
use weft_model::service::Protocol;
use weft_service::iptables::Iptables;
use weft_service::ipvs::kube_proxy::drain;
use weft_service::ipvs::{Ipvs, IpvsConfig};
use weft_service::nftables::Nftables;
use weft_service::userspace::Userspace;
use weft_service::{Changed, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan, kube_proxy};

use super::world::{Held, World, asked, datagrams, frontend, listed, plan, run};
use super::{DNS, WEB, dns, web};

const SOON: std::time::Duration = std::time::Duration::from_secs(180);
const NODE: &str = "10.244.1.1:30080";

fn services() -> ServicePlan {
    let node = FrontendKey { place: Place::NodePort { ipv6: false }, protocol: Protocol::Tcp, port: 30_080 };
    let at_node = Frontend { kind: Kind::NodePort, policy: Policy::Cluster, ..frontend(&[1, 2]) };
    plan(&[(web(), frontend(&[1, 2])), (node, at_node), (dns(), frontend(&[2, 3]))])
}

/// The same as Kubernetes' objects.
fn objects() -> Vec<(&'static str, Value)> {
    let service = |name: &str, kind: &str, ip: &str, port: Value| {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": name, "uid": name},
            "spec": {"type": kind, "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "ports": [port], "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"}});
        ("/api/v1/services", service)
    };
    let slice = |name: &str, protocol: &str, pods: [u8; 2]| {
        let endpoint =
            |pod: u8| json!({"addresses": [format!("10.244.{pod}.2")], "conditions": {"ready": true}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("{name}-x"),
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": pods.map(endpoint),
            "ports": [{"name": "", "protocol": protocol, "port": 8080}]});
        ("/apis/discovery.k8s.io/v1/endpointslices", slice)
    };
    vec![
        service("web", "NodePort", "10.96.0.1", json!({"protocol": "TCP", "port": 80, "nodePort": 30080})),
        service("dns", "ClusterIP", "10.96.0.10", json!({"protocol": "UDP", "port": 53})),
        slice("web", "TCP", [1, 2]),
        slice("dns", "UDP", [2, 3]),
    ]
}

/// The real one, when it serves all of that in the calling thread's namespace.
fn kube_proxy() -> KubeProxy {
    let folder =
        Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "uid": "node"}, "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.244.1.1"}]}});
    let arguments = ["--cluster-cidr=10.244.0.0/16", "--nodeport-addresses=10.244.1.1/32"].map(str::to_owned);
    let mut proxy = KubeProxy::start(&folder, ProxyMode::Ipvs, node, objects(), &arguments).unwrap();
    eventually(SOON, "kube-proxy serves", || {
        proxy.check().unwrap();
        let found = listed();
        found.len() == 9
            && [WEB, NODE, DNS].iter().all(|at| found.iter().any(|line| line.contains(at)))
            && run("iptables-save", &[]).contains("KUBE-CLUSTER-IP")
    });
    proxy
}

/// What is left of kube-proxy, in lines.
fn left() -> Vec<String> {
    let text = [run("ip", &["-o", "link"]), run("ipset", &["list", "-n"]), run("iptables-save", &[])];
    let is_left = |line: &&str| {
        ["kube-ipvs0", "KUBE-IPVS", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-CLUSTER-IP", "match-set"]
            .iter()
            .any(|word| line.contains(word))
    };
    text.iter().flat_map(|text| text.lines()).filter(is_left).map(str::to_owned).collect()
}

/// `apply` is a mode's; what it gives runs until the test ends.
fn takes_over<T>(apply: impl FnOnce(&ServicePlan, &Changed) -> T) {
    let mut world = World::new();
    let proxy = kube_proxy();
    let mut held: Vec<Held> = world.client(|| [WEB, NODE, WEB, NODE].map(Held::to)).into();
    held.push(Held::to(WEB));
    let socket = world.client(|| datagrams(DNS));
    let by = asked(&socket).unwrap();
    drop(proxy);
    assert!(kube_proxy::find(&mut Nft::open().unwrap()).unwrap().unwrap().contains("(ipvs)"));

    let (done, answers) = (AtomicBool::new(false), AtomicU32::new(0));
    let client = world.other_client();
    let running = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            client.enter().unwrap();
            while !done.load(Ordering::Relaxed) {
                for at in [WEB, NODE] {
                    assert!(Held::to(at).goes_on(), "{at}");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let more = || {
            let before = answers.load(Ordering::Relaxed);
            eventually(SOON, "connections are answered", || {
                assert!(!asker.is_finished());
                answers.load(Ordering::Relaxed) > before + 4
            });
        };
        more();
        let plan = services();
        let changed =
            Changed { rest: true, frontends: plan.frontends.keys().copied().collect(), ..Changed::default() };
        let running = apply(&plan, &changed);
        more();
        assert!(!drain().unwrap());
        kube_proxy::remove().unwrap();
        more();
        assert!(!drain().unwrap());
        more();
        done.store(true, Ordering::Relaxed);
        asker.join().unwrap();
        running
    });
    assert_eq!(kube_proxy::find(&mut Nft::open().unwrap()).unwrap(), None);
    assert!(held.iter_mut().all(Held::goes_on), "{:?}", listed());
    assert_eq!(asked(&socket), Some(by));
    assert!(Held::to(WEB).goes_on());

    run("ipvsadm", &["--set", "1", "1", "1"]);
    assert_eq!(asked(&socket), Some(by));
    drop(held);
    eventually(SOON, "nothing of kube-proxy is left", || drain().unwrap());
    assert_eq!(left(), [] as [String; 0]);
    assert!(listed().iter().all(|line| !line.contains(NODE)), "{:?}", listed());
    world.client(|| [WEB, NODE].map(|at| assert!(Held::to(at).goes_on(), "{at}")));
    assert!(asked(&socket).is_some());
    drop(running);
}

#[test]
#[ignore = "needs IPVS and the real kube-proxy: scripts/vm-test.sh 9-ipvs"]
fn nftables_takes_over_from_kube_proxy() {
    takes_over(|plan, changed| {
        let mut backend = Nftables::open().unwrap();
        backend.apply(plan, changed).unwrap();
    });
}

#[test]
#[ignore = "needs IPVS and the real kube-proxy: scripts/vm-test.sh 9-ipvs"]
fn iptables_takes_over_from_kube_proxy() {
    takes_over(|plan, changed| {
        let mut backend = Iptables::open().unwrap();
        backend.apply(plan, changed).unwrap();
    });
}

#[test]
#[ignore = "needs IPVS and the real kube-proxy: scripts/vm-test.sh 9-ipvs"]
fn ipvs_takes_over_from_kube_proxy() {
    takes_over(|plan, changed| {
        let mut backend = Ipvs::open(IpvsConfig::default()).unwrap();
        backend.apply(plan, changed).unwrap();
    });
}

#[test]
#[ignore = "needs IPVS and the real kube-proxy: scripts/vm-test.sh 9-ipvs"]
fn userspace_takes_over_from_kube_proxy() {
    takes_over(|plan, changed| {
        let mut backend = Userspace::open().unwrap();
        backend.apply(plan, changed).unwrap();
        backend
    });
}
