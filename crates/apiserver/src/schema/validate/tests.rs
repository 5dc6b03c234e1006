use super::*;
use proptest::prelude::*;

fn errors(schema: Value, spec: Value) -> Vec<String> {
    let schema = Schema::custom(&json!({"type": "object", "properties": {"spec": schema}}));
    let errors = schema.check(&json!({"spec": spec}), None);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[test]
fn the_words_are_kubernetes_own() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("x"),
            r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "string", "nullable": false}),
            json!(null),
            r#"spec: Invalid value: "null": spec in body must be of type string: "null""#,
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            r#"spec: Invalid value: "b": spec in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "spec: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("c"),
            r#"spec: Invalid value: "c": spec in body must be of type ipv4: "c""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!(1),
            "spec: Invalid value: 1: spec in body should be less than 1",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "spec: Invalid value: 7: spec in body should be a multiple of 5",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec: Invalid value: 0: spec in body should have at least 1 items",
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "boolean"}}}}),
            json!([{"a": 1}]),
            r#"spec[0].a: Invalid value: "integer": spec[0].a in body must be of type boolean: "integer""#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "object", "not": {"required": ["a"]}}),
            json!({"a": 1}),
            r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b", "a"]),
            r#"spec[2]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
            json!([{"n": "a"}, {"n": "a", "x": 1}]),
            r#"spec[1]: Duplicate value: {"n":"a"}"#,
        ),
    ];
    for (schema, spec, error) in cases {
        assert_eq!(errors(schema, spec), [error]);
    }
}

#[test]
fn schemas_are_joined() {
    let one_of = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert!(errors(one_of.clone(), json!({"a": ""})).is_empty());
    let none =
        r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#;
    assert_eq!(errors(one_of.clone(), json!({})), [none, "spec.a: Required value"]);
    let two = r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#;
    assert_eq!(errors(one_of, json!({"a": "", "b": ""})), [two]);
    let any = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert!(errors(any.clone(), json!(1)).is_empty());
    assert!(errors(any, json!("1")).is_empty());
}

#[test]
fn good_values_pass() {
    assert!(errors(json!({"type": "number"}), json!(1)).is_empty());
    assert!(errors(json!({"type": "integer"}), json!(1.0)).is_empty());
    assert!(errors(json!({"type": "string", "nullable": true}), json!(null)).is_empty());
    assert!(errors(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, {"a": "b"}])).is_empty());
    assert!(errors(json!({"type": "integer", "enum": [1, 2]}), json!(1.0)).is_empty());
}

#[test]
fn what_was_wrong_before_stops_no_update() {
    let schema = Schema::custom(
        &json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
    );
    let old = json!({"a": 1});
    assert!(schema.check(&json!({"a": 1, "b": "x"}), Some(&old)).is_empty());
    assert_eq!(schema.check(&json!({"a": 1, "b": 2}), Some(&old)).len(), 1);
}

#[test]
fn a_huge_pattern_is_bounded() {
    let pattern = "(a{1000}){1000}";
    let error = errors(json!({"type": "string", "pattern": pattern}), json!("b"));
    assert!(error[0].contains("but pattern is invalid"), "{error:?}");
    let deep = "(".repeat(100_000);
    assert_eq!(errors(json!({"type": "string", "pattern": deep}), json!("b")).len(), 1);
}

/// Any JSON of a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        "[a-d]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Schemas of the forms that matter, of any nesting.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "pattern": "^a", "maxLength": 2})),
        Just(json!({"type": "integer", "minimum": 0, "default": 1})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"type": "boolean", "nullable": true})),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|s| json!({"type": "array", "items": s, "maxItems": 2})),
            inner.clone().prop_map(|s| json!({"type": "object", "additionalProperties": s})),
            inner.clone().prop_map(|s| json!({"type": "array", "items": s, "x-kubernetes-list-type": "set"})),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|p| json!({"type": "object", "properties": p, "required": ["a"]})),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_pruned_and_filled_once_stays(source in any_schema(), value in any_json()) {
        let schema = Schema::custom(&json!({"type": "object", "properties": {"spec": source}}));
        let mut object = json!({"spec": value});
        schema.read(&mut object).unwrap();
        schema.fill(&mut object);
        schema.check(&object, None);
        let mut again = object.clone();
        prop_assert!(schema.read(&mut again).unwrap().is_empty());
        schema.fill(&mut again);
        prop_assert_eq!(again, object);
    }

    #[test]
    fn any_json_is_a_schema_that_does_not_panic(source in any_json(), value in any_json()) {
        let schema = Schema::custom(&source);
        let mut value = value;
        let _ = schema.read(&mut value);
        schema.fill(&mut value);
        schema.check(&value, None);
    }
}
