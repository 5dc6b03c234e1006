use serde_json::{Value, json};

use crate::schema::Schema;

fn schema(spec: Value) -> Schema {
    Schema::custom(&json!({"type": "object", "properties": {"spec": spec}}))
}

fn told(schema: &Schema, spec: Value, old: Option<Value>) -> Vec<String> {
    let old = old.map(|spec| json!({"spec": spec}));
    let errors = schema.check(&json!({"spec": spec}), old.as_ref());
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

fn rule(rule: &str, kind: &str) -> Schema {
    schema(json!({"type": kind, "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-validations": [{"rule": rule, "message": "no"}]}))
}

#[test]
fn rules_are_asked() {
    let s = rule("self.min <= self.max", "object");
    assert!(told(&s, json!({"min": 1, "max": 2}), None).is_empty());
    assert_eq!(told(&s, json!({"min": 3, "max": 2}), None), ["spec: Invalid value: no"]);
    assert_eq!(
        told(&s, json!({"min": 3}), None),
        [r#"spec: Invalid value: "object": no such key: max evaluating rule: no"#]
    );
    let s = rule("self.startsWith('a')", "string");
    assert_eq!(told(&s, json!("b"), None), [r#"spec: Invalid value: "b": no"#]);
}

#[test]
fn the_rules_of_the_gateway_api() {
    let cases = [
        ("!('*' in self && self.size() > 1)", json!(["*"]), json!(["*", "a"])),
        ("self.all(h, !isIP(h))", json!(["a"]), json!(["1.2.3.4"])),
        ("self.all(key, key.split(\"/\")[0].size() < 8)", json!({"a/b": 1}), json!({"abcdefgh/b": 1})),
        ("self.all(key, key.matches(r\"\"\"^[a-z]+$\"\"\"))", json!({"a": 1}), json!({"1": 1})),
        (
            "self.filter(f, f.type == 'CORS').size() <= 1",
            json!([{"type": "CORS"}]),
            json!([{"type": "CORS"}, {"type": "CORS"}]),
        ),
        (
            "self.all(p1, self.exists_one(p2, p1.port == p2.port && p1.protocol == p2.protocol))",
            json!([{"port": 1, "protocol": "a"}, {"port": 2, "protocol": "a"}]),
            json!([{"port": 1, "protocol": "a"}, {"port": 1, "protocol": "a"}]),
        ),
        (
            "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
            json!({"group": "", "kind": "Service", "port": 1}),
            json!({"group": "", "kind": "Service"}),
        ),
        (
            "!(has(self.a) && has(self.b) && duration(self.a) != duration('0s') && duration(self.b) > duration(self.a))",
            json!({"a": "0s", "b": "1s"}),
            json!({"a": "1s", "b": "1m"}),
        ),
        (
            "self.type in ['Exact','PathPrefix'] ? !self.value.endsWith('/..') : true",
            json!({"type": "Exact", "value": "/a"}),
            json!({"type": "Exact", "value": "/.."}),
        ),
    ];
    for (text, good, bad) in cases {
        let s = rule(text, if good.is_array() { "array" } else { "object" });
        assert!(s.skipped_rules().is_empty(), "{text}: {:?}", s.skipped_rules());
        assert!(told(&s, good, None).is_empty(), "{text}");
        assert_eq!(told(&s, bad, None).len(), 1, "{text}");
    }
}

#[test]
fn what_changes_is_compared_with_what_was() {
    let s = rule("self == oldSelf", "string");
    assert!(told(&s, json!("a"), None).is_empty());
    assert!(told(&s, json!("a"), Some(json!("a"))).is_empty());
    assert_eq!(told(&s, json!("b"), Some(json!("a"))).len(), 1);
}

#[test]
fn reserved_names_are_escaped() {
    let s = schema(json!({"type": "object", "properties": {"namespace": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "has(self.__namespace__)", "messageExpression": "'no ' + 'namespace'",
            "reason": "FieldValueRequired", "fieldPath": ".namespace"}]}));
    assert!(told(&s, json!({"namespace": "a"}), None).is_empty());
    assert_eq!(told(&s, json!({}), None), ["spec.namespace: Required value: no namespace"]);
}

#[test]
fn what_cannot_be_evaluated_is_skipped_and_named() {
    for text in [
        "url(self).getHost() == 'a'",
        "self.",
        "quantity(self).isLessThan(quantity('1'))",
        &"(".repeat(9_000),
    ] {
        let s = rule(text, "string");
        assert_eq!(s.skipped_rules().len(), 1, "{text}");
        assert!(told(&s, json!("a"), None).is_empty());
    }
}

#[test]
fn the_deepest_expressions_that_are_taken_fit_the_stack() {
    let deep =
        [format!("1{} > 0", "+1".repeat(38)), format!("size({}{}) >= 0", "[".repeat(36), "]".repeat(36))];
    for text in deep {
        let s = rule(&text, "string");
        assert!(s.skipped_rules().is_empty(), "{text}: {:?}", s.skipped_rules());
        assert!(told(&s, json!("a"), None).is_empty());
    }
}

#[test]
fn costs_are_bounded() {
    let s = rule("self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d >= 0))))", "array");
    let long: Vec<u32> = (0..2_000).collect();
    let error = told(&s, json!(long), None);
    assert!(error[0].contains("running out of cost budget"), "{error:?}");
}

#[test]
fn an_invalid_object_is_not_asked() {
    let s = schema(json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.a == 'b'"}]}));
    let errors = told(&s, json!({}), None);
    assert_eq!(errors[0], "spec.a: Required value");
    assert_eq!(
        errors[1],
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
    );
}
