//! Who gets which address, case by case.

use serde_json::{Value, json};

use super::simulation::Api;

fn api(addresses: &[&str]) -> Api {
    let mut api = Api::default();
    api.pool("public", &json!({"spec": {"addresses": addresses}}));
    api
}

fn service(families: &[&str], more: Value) -> Value {
    let mut service =
        json!({"spec": {"type": "LoadBalancer", "ipFamilies": families, "ports": [{"port": 80}]}});
    for (part, fields) in more.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            service[part][field] = value.clone();
        }
    }
    service
}

fn plain() -> Value {
    service(&["IPv4"], Value::Null)
}

fn annotated(annotations: Value) -> Value {
    service(&["IPv4"], json!({"metadata": {"annotations": annotations}}))
}

fn ips(api: &Api, name: &str) -> String {
    api.ips(name).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_gets_the_first_that_is_free_and_gives_it_back() {
    let mut api = api(&["192.0.2.8/30"]);
    api.node("192.0.2.8");
    for name in ["a", "b", "c", "d"] {
        api.service(name, &plain());
    }
    api.settle();
    assert_eq!([ips(&api, "a"), ips(&api, "b"), ips(&api, "c")], ["192.0.2.9", "192.0.2.10", "192.0.2.11"]);
    assert_eq!(ips(&api, "d"), "");
    assert!(
        api.told("d").starts_with("false PoolFull: no IPv4 address is left in public"),
        "{}",
        api.told("d")
    );
    assert_eq!(
        (&api.status("public")["assigned"], &api.status("public")["available"]),
        (&json!(3), &json!(0))
    );
    api.service("a", &json!({"spec": {"type": "ClusterIP"}}));
    api.settle();
    assert_eq!((ips(&api, "d"), api.told("a")), ("192.0.2.9".into(), String::new()));
    api.delete_service("b");
    api.settle();
    assert_eq!(api.status("public")["available"], 1);
}

#[test]
fn families() {
    let mut api = api(&["192.0.2.0/31", "2001:db8::/127"]);
    let both = |policy: &str| service(&["IPv6", "IPv4"], json!({"spec": {"ipFamilyPolicy": policy}}));
    api.service("a", &both("RequireDualStack"));
    api.service("b", &plain());
    api.service("c", &both("RequireDualStack"));
    api.service("d", &both("PreferDualStack"));
    api.settle();
    assert_eq!(ips(&api, "a"), "2001:db8:: 192.0.2.0", "in the order of its families");
    assert_eq!((ips(&api, "b"), ips(&api, "c")), ("192.0.2.1".into(), String::new()), "both or none");
    assert!(api.told("c").contains("no IPv4 address"), "{}", api.told("c"));
    assert_eq!(ips(&api, "d"), "2001:db8::1", "as far as there is");
    assert!(api.told("d").starts_with("true Assigned"));
}

#[test]
fn what_is_asked_for() {
    let mut api = api(&["192.0.2.0/28"]);
    api.pool("gold", &json!({"spec": {"addresses": ["198.51.100.0/30"], "autoAssign": false}}));
    api.service("a", &annotated(json!({"metallb.io/loadBalancerIPs": "192.0.2.7"})));
    api.service("b", &annotated(json!({"weft.dev/load-balancer-ips": "192.0.2.7"})));
    api.service("c", &annotated(json!({"weft.dev/load-balancer-ips": "203.0.113.1"})));
    api.service("d", &annotated(json!({"weft.dev/load-balancer-pool": "gold"})));
    api.service("e", &annotated(json!({"weft.dev/load-balancer-pool": "tin"})));
    api.service("f", &plain());
    api.settle();
    assert_eq!(ips(&api, "a"), "192.0.2.7");
    assert!(api.told("b").starts_with("false AddressTaken: 192.0.2.7 is shop/a's"), "{}", api.told("b"));
    assert!(api.told("c").starts_with("false NotInPool"), "{}", api.told("c"));
    assert_eq!((ips(&api, "d"), ips(&api, "f")), ("198.51.100.0".into(), "192.0.2.0".into()));
    assert!(api.told("e").contains("make it"), "{}", api.told("e"));
    // It moves when it may, and what it had is free then.
    api.service("f", &annotated(json!({"weft.dev/load-balancer-ips": "192.0.2.7"})));
    api.settle();
    assert_eq!(ips(&api, "f"), "192.0.2.0", "until then it keeps what it has");
    assert!(api.told("f").starts_with("false Incomplete"), "{}", api.told("f"));
    api.delete_service("a");
    api.delete_service("b");
    api.settle();
    assert_eq!((ips(&api, "f"), api.status("public")["assigned"].clone()), ("192.0.2.7".into(), json!(1)));
}

#[test]
fn selectors_and_priorities_choose() {
    let mut api = Api::default();
    let pool = |range: &str, more: Value| {
        let mut spec = json!({"addresses": [range]});
        more.as_object().into_iter().flatten().for_each(|(k, v)| spec[k] = v.clone());
        json!({ "spec": spec })
    };
    api.pool("late", &pool("192.0.2.0/31", Value::Null));
    api.pool(
        "first",
        &pool("192.0.2.2/31", json!({"priority": 1, "serviceSelector": {"matchLabels": {"app": "web"}}})),
    );
    api.pool(
        "tin",
        &pool("192.0.2.4/31", json!({"priority": 0, "namespaceSelector": {"matchLabels": {"tier": "tin"}}})),
    );
    let web = service(&["IPv4"], json!({"metadata": {"labels": {"app": "web"}}}));
    api.service("web", &web);
    api.service("db", &plain());
    api.service("six", &service(&["IPv6"], Value::Null));
    api.settle();
    assert_eq!((ips(&api, "web"), ips(&api, "db")), ("192.0.2.2".into(), "192.0.2.0".into()));
    assert!(api.told("six").starts_with("false NoPool"), "{}", api.told("six"));
}

#[test]
fn one_address_for_two() {
    let mut api = api(&["192.0.2.0/28"]);
    let keyed = |port: u16| {
        let mut service = annotated(json!({"metallb.universe.tf/allow-shared-ip": "k"}));
        service["spec"]["ports"] = json!([{ "port": port }]);
        service
    };
    api.service("a", &keyed(80));
    api.service("b", &keyed(81));
    api.service("c", &keyed(80));
    api.settle();
    assert_eq!([ips(&api, "a"), ips(&api, "b"), ips(&api, "c")], ["192.0.2.0", "192.0.2.0", "192.0.2.1"]);
    assert_eq!(api.status("public")["assigned"], 2);
    api.service("b", &keyed(80));
    api.settle();
    assert_eq!([ips(&api, "a"), ips(&api, "b")], ["192.0.2.0", "192.0.2.2"], "the older keeps it");
}

#[test]
fn what_pools_no_longer_give_stays_and_is_told() {
    let mut api = api(&["192.0.2.0/30"]);
    api.service("a", &plain());
    api.settle();
    api.pool("public", &json!({"spec": {"addresses": ["192.0.2.2/31"]}}));
    api.settle();
    assert_eq!(ips(&api, "a"), "192.0.2.0");
    assert!(api.told("a").starts_with("true PoolGone"), "{}", api.told("a"));
    api.delete_pool("public");
    api.service("b", &plain());
    api.settle();
    assert_eq!(
        (ips(&api, "a"), api.told("b")),
        ("192.0.2.0".into(), String::new()),
        "without pools nobody is told"
    );
}

#[test]
fn bad_pools_give_nothing_and_say_why() {
    let mut api = api(&["192.0.2.0/30"]);
    for (name, range, word) in [
        ("overlapping", "192.0.2.3-192.0.2.9", "of the older pool public"),
        ("reversed", "192.0.2.99-192.0.2.90", "begins after its end"),
        ("pods", "10.244.7.0/24", "the pods' network"),
    ] {
        api.pool(name, &json!({"spec": {"addresses": [range]}}));
        api.settle();
        let condition = &api.status(name)["conditions"][0];
        assert_eq!((&condition["status"], &api.status(name)["available"]), (&json!("False"), &json!(0)));
        assert!(condition["message"].as_str().unwrap().contains(word), "{condition}");
    }
    api.pool("six", &json!({"spec": {"addresses": ["2001:db8::/64"]}}));
    api.settle();
    assert_eq!(api.status("six")["available"], 9_007_199_254_740_991_u64);
}

#[test]
fn addresses_of_other_controllers_are_left_alone() {
    let mut api = api(&["192.0.2.0/30"]);
    let held = |entry: Value| {
        let mut service = plain();
        service["status"] = json!({"loadBalancer": {"ingress": [entry]}});
        service
    };
    api.service("cloud", &held(json!({"hostname": "lb.example.com"})));
    api.service("other", &held(json!({"ip": "203.0.113.9", "ipMode": "VIP"})));
    api.service(
        "classed",
        &service(
            &["IPv4"],
            json!({"spec": {"loadBalancerClass": "example.com/lb"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.0"}]}}}),
        ),
    );
    api.service("adopted", &held(json!({"ip": "192.0.2.1", "ipMode": "VIP"})));
    api.service("new", &plain());
    api.settle();
    assert_eq!((api.told("cloud"), api.told("other"), api.told("classed")), Default::default());
    assert_eq!((ips(&api, "other"), ips(&api, "adopted")), ("203.0.113.9".into(), "192.0.2.1".into()));
    assert!(api.told("adopted").starts_with("true Assigned"));
    assert_eq!(ips(&api, "new"), "192.0.2.2", "nor is what they have given away");
}
