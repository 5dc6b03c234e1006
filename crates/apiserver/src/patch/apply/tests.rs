use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn config(manager: &str, object: Value, force: bool) -> Configuration {
    let manager = Manager {
        name: manager.to_owned(),
        operation: Operation::Apply,
        subresource: String::new(),
        api_version: "apps/v1".to_owned(),
    };
    Configuration { object, manager, force }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

/// Applies, and puts the managers back into the object as the registry does.
fn applied(live: &Value, manager: &str, object: Value, force: bool) -> Result<Value, ApiError> {
    let Applied { mut object, managed } =
        apply(&kinds::DEPLOYMENTS, live, &config(manager, object, force), NOW)?;
    retain(&mut object, managed.to_json());
    Ok(object)
}

fn pods(containers: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": containers}}}))
}

fn start(manager: &str, object: Value) -> Value {
    let first = first(&kinds::DEPLOYMENTS, &object, &config(manager, object.clone(), false), NOW);
    let mut object = object;
    retain(&mut object, first);
    object
}

#[test]
fn owned_fields_are_listed_as_kubernetes_lists_them() {
    let object = start("me", pods(json!([{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}])));
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("me"), &json!("Apply")));
    let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
        ".": {}, "f:name": {}, "f:image": {},
        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
    assert_eq!(entry["fieldsV1"], fields);
}

#[test]
fn what_is_not_applied_any_more_goes() {
    let live =
        start("me", deployment(json!({"replicas": 2, "paused": true, "strategy": {"type": "Recreate"}})));
    let object = applied(&live, "me", deployment(json!({"replicas": 3})), false).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 3}));
    let live = start("me", pods(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])));
    let object = applied(&live, "me", pods(json!([{"name": "b", "image": "y"}])), false).unwrap();
    assert_eq!(object["spec"]["template"]["spec"]["containers"], json!([{"name": "b", "image": "y"}]));
}

#[test]
fn another_managers_value_is_a_conflict() {
    let live = start("one", deployment(json!({"replicas": 2, "paused": true})));
    let error = applied(&live, "two", deployment(json!({"replicas": 3})), false).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    assert_eq!((error.code, &*error.reason), (409, "Conflict"));
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.replicas"}]);
    assert_eq!(error.details["causes"], cause);
    let error =
        applied(&live, "two", deployment(json!({"replicas": 3, "paused": false})), false).unwrap_err();
    let message = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas";
    assert_eq!(error.message, message);
}

#[test]
fn force_takes_a_field_and_the_same_value_shares_it() {
    let live = start("one", deployment(json!({"replicas": 2})));
    let taken = applied(&live, "two", deployment(json!({"replicas": 3})), true).unwrap();
    let managers = taken["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!((managers.len(), &managers[0]["manager"]), (1, &json!("two")));
    let shared = applied(&live, "two", deployment(json!({"replicas": 2})), false).unwrap();
    let left = applied(&shared, "one", deployment(json!({})), false).unwrap();
    assert_eq!(left["spec"]["replicas"], 2, "the other still wants it");
}

#[test]
fn defaults_that_nobody_applied_stay() {
    let mut live = start("me", pods(json!([{"name": "a", "image": "x", "command": ["y"]}])));
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let object = applied(&live, "me", pods(json!([{"name": "a", "image": "x"}])), false).unwrap();
    let kept = json!([{"name": "a", "image": "x", "imagePullPolicy": "Always"}]);
    assert_eq!(object["spec"]["template"]["spec"]["containers"], kept);
}

#[test]
fn an_object_without_managers_belongs_to_its_past() {
    let live = deployment(json!({"replicas": 2, "paused": true}));
    let error = applied(&live, "me", deployment(json!({"replicas": 3})), false).unwrap_err();
    assert!(
        error.message.contains("\"before-first-apply\" using apps/v1: .spec.replicas"),
        "{}",
        error.message
    );
    let object = applied(&live, "me", deployment(json!({"replicas": 2})), false).unwrap();
    assert_eq!(object["spec"], live["spec"]);
}

#[test]
fn kubectls_own_past_is_no_conflict() {
    let mut live = deployment(json!({"replicas": 2, "paused": true}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration":
        deployment(json!({"replicas": 2})).to_string()});
    let object = applied(&live, "kubectl", deployment(json!({"replicas": 5})), false).unwrap();
    assert_eq!(object["spec"]["replicas"], 5);
    let annotation = &object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(annotation.as_str().unwrap().contains("\"replicas\":5"));
    applied(&live, "other", deployment(json!({"replicas": 5})), false).unwrap_err();
    applied(&live, "kubectl", deployment(json!({"paused": false})), false).unwrap_err();
}

#[test]
fn a_list_of_doubles_is_refused() {
    let twice = pods(json!([{"name": "a"}, {"name": "a"}]));
    let error = applied(&pods(json!([])), "me", twice, false).unwrap_err();
    assert!(error.code == 500 && error.message.contains("duplicate entries for key"), "{}", error.message);
}

#[test]
fn a_custom_kinds_schema_says_how_it_merges() {
    let mut r = kinds::DEPLOYMENTS.clone();
    r.schema = Some(Arc::new(Schema::custom(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "tags": {"type": "array", "x-kubernetes-list-type": "set"},
        "plain": {"type": "array"},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
        "byId": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
        "named": {"type": "object", "additionalProperties": {"type": "object"}}}}}}),
    )));
    let one = deployment(
        json!({"tags": ["a"], "plain": [1], "whole": {"x": 1}, "byId": [{"id": 1, "v": 1}], "named": {"k": {"v": 1}}}),
    );
    let managed = first(&r, &one, &config("one", one.clone(), false), NOW);
    let fields = json!({"f:spec": {"f:tags": {"v:\"a\"": {}}, "f:plain": {}, "f:whole": {},
        "f:byId": {"k:{\"id\":1}": {".": {}, "f:id": {}, "f:v": {}}}, "f:named": {"f:k": {".": {}, "f:v": {}}}}});
    assert_eq!(managed[0]["fieldsV1"], fields);
    let mut live = one;
    retain(&mut live, managed);
    let two = deployment(json!({"tags": ["b"], "byId": [{"id": 2}], "named": {"l": {"v": 2}}}));
    let both = apply(&r, &live, &config("two", two, false), NOW).unwrap().object;
    assert_eq!(both["spec"]["tags"], json!(["a", "b"]));
    assert_eq!(both["spec"]["byId"], json!([{"id": 1, "v": 1}, {"id": 2}]));
    assert_eq!(both["spec"]["named"], json!({"k": {"v": 1}, "l": {"v": 2}}));
    let clash = deployment(json!({"whole": {"y": 1}, "plain": [2]}));
    let error = apply(&r, &live, &config("two", clash, false), NOW).unwrap_err();
    assert_eq!(error.details["causes"].as_array().unwrap().len(), 2);
}

#[test]
fn other_writes_own_what_they_change() {
    let updater = Manager {
        name: "curl".into(),
        operation: Operation::Update,
        subresource: String::new(),
        api_version: "apps/v1".into(),
    };
    let live = start("me", deployment(json!({"replicas": 2, "paused": true})));
    let mut new = live.clone();
    new["spec"] = json!({"replicas": 4});
    let managed = track(&kinds::DEPLOYMENTS, &live, &new, &live["metadata"]["managedFields"], &updater, NOW);
    retain(&mut new, managed);
    let error = applied(&new, "me", deployment(json!({"replicas": 2})), false).unwrap_err();
    assert!(
        error.message.contains("conflict with \"curl\" using apps/v1: .spec.replicas"),
        "{}",
        error.message
    );
    assert_eq!(track(&kinds::DEPLOYMENTS, &live, &new, &json!([{}]), &updater, NOW), Value::Null);
    let bare = deployment(json!({}));
    assert_eq!(track(&kinds::DEPLOYMENTS, &bare, &new, &Value::Null, &updater, NOW), Value::Null);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn container() -> impl Strategy<Value = Value> {
        ("[ab]", proptest::option::of("[xy]"), proptest::option::of(0..3u8)).prop_map(
            |(name, image, port)| {
                let mut c = json!({"name": name});
                if let Some(image) = image {
                    c["image"] = json!(image);
                }
                if let Some(port) = port {
                    c["ports"] = json!([{"containerPort": port}]);
                }
                c
            },
        )
    }

    prop_compose! {
        /// A configuration; `private` fields are in nobody else's.
        fn configuration(private: &'static str)(
            own in proptest::collection::btree_map("[a-c]".prop_map(move |key| private.to_owned() + &key), "[x-z]", 0..3),
            replicas in proptest::option::of(0..3u8),
            containers in proptest::collection::vec(container(), 0..3),
        ) -> Value {
            let mut names = std::collections::HashSet::new();
            let containers: Vec<Value> =
                containers.into_iter().filter(|c| names.insert(c["name"].to_string())).collect();
            let mut object = pods(json!(containers));
            object["metadata"]["labels"] = json!(own);
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            object
        }
    }

    /// Whether every plain value of the configuration is in the object.
    fn holds(live: &Value, config: &Value) -> bool {
        let difference = extract::compare(
            live,
            &{
                let mut merged = live.clone();
                merge::merge(&mut merged, config, Shape::of(&kinds::DEPLOYMENTS), 0).unwrap();
                merged
            },
            Shape::of(&kinds::DEPLOYMENTS),
            0,
        );
        difference.changed.is_empty() && difference.removed.is_empty()
    }

    fn fields_of(object: &Value) -> FieldSet {
        owned_part(&kinds::DEPLOYMENTS, object, "")
    }

    /// Any value of the fields that have rules of their own, and of one that has none.
    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(json!([])),
            Just(json!({})),
            (0..3u8).prop_map(|n| json!(n)),
            "[ab]".prop_map(|s| json!(s)),
        ];
        let name = proptest::sample::select(vec![
            "name",
            "containers",
            "ports",
            "containerPort",
            "finalizers",
            "metadata",
            "spec",
            "selector",
            "x",
        ]);
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
                proptest::collection::vec((name.clone(), inner), 0..4)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn hostile_objects_are_applied_once_and_for_all(live in anything(), config in anything()) {
            let (mut live, mut config) = (deployment(live), deployment(config));
            live["metadata"]["managedFields"] = json!([{"manager": "two", "operation": "Apply", "apiVersion": "apps/v1",
                "fieldsType": "FieldsV1", "fieldsV1": fields_of(&live).to_json()}]);
            config["metadata"]["finalizers"] = json!(["a"]);
            if let Ok(once) = applied(&live, "two", config.clone(), true) {
                prop_assert_eq!(&applied(&once, "two", config.clone(), true).unwrap(), &once);
            }
            let schema = json!({"properties": {"spec": {"properties": {
                "containers": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"properties": {"name": {"default": "a"}}}},
                "finalizers": {"x-kubernetes-list-type": "set"},
                "ports": {"additionalProperties": {}}, "selector": {"x-kubernetes-map-type": "atomic"}}}}});
            if let Ok(once) = apply_by_force(Some(&schema), &live, &config) {
                prop_assert_eq!(&apply_by_force(Some(&schema), &once, &config).unwrap(), &once);
            }
        }

        #[test]
        fn twice_is_once(a in configuration("a"), b in configuration("b")) {
            let live = start("one", a);
            let once = applied(&live, "two", b.clone(), true).unwrap();
            prop_assert_eq!(&applied(&once, "two", b, false).unwrap(), &once);
        }

        #[test]
        fn dropping_all_leaves_what_was_before(a in configuration("a"), b in configuration("b")) {
            let live = start("one", a.clone());
            let Ok(both) = applied(&live, "two", b, false) else { return Ok(()) };
            let none = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
            let left = applied(&both, "two", none, false).unwrap();
            prop_assert!(holds(&left, &a));
            let managers = left["metadata"]["managedFields"].clone();
            prop_assert_eq!(managers, live["metadata"]["managedFields"].clone());
            for label in left["metadata"]["labels"].as_object().into_iter().flatten() {
                prop_assert!(label.0.starts_with('a'));
            }
        }

        #[test]
        fn no_manager_loses_what_another_applies(
            a in configuration("a"), steps in proptest::collection::vec(configuration("b"), 1..5)
        ) {
            let mut live = start("one", a.clone());
            for config in steps {
                if let Ok(next) = applied(&live, "two", config.clone(), false) {
                    prop_assert!(holds(&next, &a) && holds(&next, &config), "{next}");
                    live = next;
                }
            }
        }
    }
}
