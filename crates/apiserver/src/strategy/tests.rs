//! Bad objects of each kind with the fields that are refused; and that nothing is given twice.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::field::Errors;
use super::kinds as rules;
use super::value::list;
use crate::kinds;
use crate::registry::{DeleteOptions, Part, Registry, RegistryConfig};
use crate::resource::Resource;

/// What a new object is refused for: its fields, and the last part of each reason.
fn refused(r: &Resource, mut object: Value) -> Vec<(String, String)> {
    object["metadata"]["name"] = json!("a");
    rules::defaults(r, &mut object);
    let mut errors = Errors::default();
    rules::check(r, None, &object, Part::Whole, &mut errors);
    let short = |reason: &str| reason.trim_start_matches("FieldValue").to_owned();
    errors.0.into_iter().map(|e| (e.field, short(e.reason))).collect()
}

/// An object, and the fields and reasons that it is refused for.
type Case = (&'static Resource, Value, &'static [(&'static str, &'static str)]);

#[test]
fn bad_objects_are_refused_at_the_right_field() {
    let pod = |c: Value| json!({"spec": {"containers": [c]}});
    let slice =
        |a: &str| json!({"addressType": "IPv4", "endpoints": [{"addresses": [a]}], "ports": [{"port": 80}]});
    let policy = |port: Value| json!({"spec": {"podSelector": {}, "ingress": [{"ports": [port]}]}});
    let path = |p: Value| json!({"spec": {"rules": [{"http": {"paths": [p]}}]}});
    let table: Vec<Case> = vec![
        (&kinds::PODS, json!({"spec": {}}), &[("spec.containers", "Required")]),
        (&kinds::PODS, pod(json!({"name": "A", "image": "i"})), &[("spec.containers[0].name", "Invalid")]),
        (
            &kinds::PODS,
            pod(json!({"name": "a", "image": "i", "ports": [{"containerPort": 70_000, "protocol": "X"}]})),
            &[
                ("spec.containers[0].ports[0].containerPort", "Invalid"),
                ("spec.containers[0].ports[0].protocol", "NotSupported"),
            ],
        ),
        (
            &kinds::PODS,
            pod(json!({"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            &[("spec.containers[0].volumeMounts[0].name", "NotFound")],
        ),
        (
            &kinds::PODS,
            pod(
                json!({"name": "a", "image": "i", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1"}}}),
            ),
            &[("spec.containers[0].resources.requests", "Invalid")],
        ),
        (
            &kinds::NODES,
            json!({"spec": {"podCIDRs": ["10.0.0.1/24"], "taints": [{"key": "a", "effect": "No"}]}}),
            &[("metadata.taints[0].effect", "NotSupported"), ("spec.podCIDRs[0]", "Invalid")],
        ),
        (&kinds::ENDPOINT_SLICES, slice("127.0.0.1"), &[("endpoints[0].addresses[0]", "Invalid")]),
        (&kinds::ENDPOINT_SLICES, slice("169.254.1.1"), &[("endpoints[0].addresses[0]", "Invalid")]),
        (&kinds::ENDPOINT_SLICES, json!({}), &[("addressType", "Required")]),
        (
            &kinds::NETWORK_POLICIES,
            policy(json!({"port": 80, "endPort": 79})),
            &[("spec.ingress[0].ports[0].endPort", "Invalid")],
        ),
        (
            &kinds::NETWORK_POLICIES,
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]}}),
            &[("spec.ingress[0].from[0].ipBlock.except[0]", "Invalid")],
        ),
        (&kinds::INGRESSES, json!({}), &[("spec", "Invalid")]),
        (
            &kinds::INGRESSES,
            path(
                json!({"path": "a", "pathType": "Exact", "backend": {"service": {"name": "a", "port": {}}}}),
            ),
            &[
                ("spec.rules[0].http.paths[0].path", "Invalid"),
                ("spec.rules[0].http.paths[0].backend", "Required"),
            ],
        ),
        (&kinds::SECRETS, json!({"type": "kubernetes.io/ssh-auth"}), &[("data[ssh-privatekey]", "Required")]),
        (&kinds::CONFIG_MAPS, json!({"data": {"a/b": ""}}), &[("data[a/b]", "Invalid")]),
        (
            &kinds::LEASES,
            json!({"spec": {"leaseDurationSeconds": 0}}),
            &[("spec.leaseDurationSeconds", "Invalid")],
        ),
        (
            &kinds::ROLES,
            json!({"rules": [{"verbs": []}]}),
            &[
                ("rules[0].verbs", "Required"),
                ("rules[0].apiGroups", "Required"),
                ("rules[0].resources", "Required"),
            ],
        ),
        (
            &kinds::POD_DISRUPTION_BUDGETS,
            json!({"spec": {"minAvailable": "101%"}}),
            &[("spec.minAvailable", "Invalid")],
        ),
        (&kinds::PRIORITY_CLASSES, json!({"value": 2_000_000_000}), &[("value", "Forbidden")]),
    ];
    for (r, object, wanted) in table {
        let wanted: Vec<_> = wanted.iter().map(|(f, e)| ((*f).to_owned(), (*e).to_owned())).collect();
        assert_eq!(refused(r, object.clone()), wanted, "{} {object}", r.kind);
    }
}

#[test]
fn a_selector_matches_its_template() {
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}},
        "spec": {"containers": [{"name": "x", "image": "i"}]}}});
    let errors = refused(&kinds::DEPLOYMENTS, json!({"spec": spec}));
    assert_eq!(errors, [("spec.template.metadata.labels".to_owned(), "Invalid".to_owned())]);
}

#[test]
fn defaults_are_settled_after_one_time_and_odd_shapes_do_not_panic() {
    let odd = [
        json!(1),
        json!([1, "x"]),
        json!("x"),
        json!({"template": 3, "containers": "x", "ports": [1]}),
        json!({"template": {"metadata": 1, "spec": {"containers": [{"name": "a", "image": "r:5/x"}]}}}),
        json!({"jobTemplate": {"spec": {"template": []}}, "strategy": 1, "updateStrategy": []}),
    ];
    for r in kinds::BUILT_IN {
        for odd in &odd {
            let mut object = json!({"metadata": {"name": "a"}, "spec": odd, "data": odd, "subsets": odd,
                "status": {"capacity": odd}, "rules": odd, "endpoints": odd, "roleRef": odd});
            rules::defaults(r, &mut object);
            let once = object.clone();
            rules::defaults(r, &mut object);
            assert_eq!(object, once, "{}", r.kind);
            rules::check(r, Some(&once), &object, Part::Whole, &mut Errors::default());
        }
    }
}

/// What Services have: no address and no node port may be there twice.
fn held(registry: &Registry) -> (Vec<String>, Vec<i64>) {
    let services = registry.list(&kinds::SERVICES, None).0;
    let (mut addresses, mut ports) = (Vec::new(), Vec::new());
    for service in &services {
        let spec = &service["spec"];
        addresses.extend(list(&spec["clusterIPs"]).iter().filter_map(Value::as_str).map(str::to_owned));
        ports.extend(list(&spec["ports"]).iter().filter_map(|p| p["nodePort"].as_i64()));
        ports.extend(spec["healthCheckNodePort"].as_i64());
    }
    (addresses, ports)
}

async fn churn(steps: Vec<(u8, u8, bool)>) {
    let folder = tempfile::tempdir().unwrap();
    // So few addresses that they run out, unless those of deleted Services come back.
    let cidrs = ["10.0.0.0/28", "fd00::/124"].map(|c| c.parse().unwrap());
    let config = RegistryConfig { service_cidrs: cidrs.to_vec() };
    let registry = Registry::open(folder.path(), config).await.unwrap();
    for (name, kind, dual) in steps {
        let name = format!("s{}", name % 10);
        let kind = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"][usize::from(kind % 4)];
        let mut spec = json!({"type": kind, "ports": [{"port": 80}]});
        match kind {
            "ExternalName" => spec["externalName"] = json!("a.example"),
            "LoadBalancer" => spec["externalTrafficPolicy"] = json!("Local"),
            _ => {}
        }
        if dual && kind != "ExternalName" {
            spec["ipFamilyPolicy"] = json!("RequireDualStack");
        }
        let service = json!({"metadata": {"name": name}, "spec": spec});
        let gone = registry.delete(&kinds::SERVICES, Some("default"), &name, DeleteOptions::default()).await;
        if gone.is_err() || kind == "NodePort" {
            registry.create(&kinds::SERVICES, Some("default"), service).await.unwrap();
        }
        let (addresses, ports) = held(&registry);
        assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), addresses.len(), "{addresses:?}");
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len(), "{ports:?}");
    }
}

#[tokio::test]
async fn the_first_of_a_range_are_for_those_who_choose() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), RegistryConfig::default()).await.unwrap();
    for n in 0..40 {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let service = json!({"metadata": {"name": format!("s{n}")}, "spec": spec});
        registry.create(&kinds::SERVICES, Some("default"), service).await.unwrap();
    }
    let (addresses, ports) = held(&registry);
    assert!(!addresses.iter().any(|a| a.to_string().starts_with("10.96.0.")), "{addresses:?}");
    assert!(ports.iter().all(|port| *port >= 30_086), "{ports:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn nothing_is_given_twice_and_what_is_released_comes_back(
        steps in prop::collection::vec(any::<(u8, u8, bool)>(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(churn(steps));
    }
}
