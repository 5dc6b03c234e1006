use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

fn error(text: &str) -> String {
    parse_text("app.yaml", text).unwrap_err().to_string()
}

#[test]
fn documents_lists_and_json_become_objects_with_their_origin() {
    let text = format!(
        "# a comment only\n---\n{}---\n\n---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{name: b}}}}\n- {{apiVersion: v1, kind: Pod, metadata: {{name: c}}}}\n",
        pod("a")
    );
    let found = parse_text("app.yaml", &text).unwrap();
    let names: Vec<_> = found.iter().map(|m| (m.name(), m.document)).collect();
    assert_eq!(names, [("a", 1), ("b", 2), ("c", 2)]);

    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}} {"apiVersion":"v1","kind":"PodList","items":[]}"#;
    assert_eq!(parse_text("app.json", json).unwrap().len(), 1);
}

#[test]
fn namespaces_and_definitions_come_first_and_the_rest_stays_as_given() {
    let text = format!(
        "{}---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: a.b.c}}\n---\n{}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n",
        pod("z"),
        pod("a")
    );
    let order: Vec<_> = parse_text("f", &text).unwrap().iter().map(|m| m.name().to_owned()).collect();
    assert_eq!(order, ["shop", "a.b.c", "z", "a"]);
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let text = format!(
        "{}spec:\n  mode: 0644\n  on1: yes\n  off1: off\n  text: \"yes\"\n  base: &b {{k: 1}}\n  merged: {{<<: *b, l: 2}}\n",
        "apiVersion: a.b/v1\nkind: Thing\nmetadata: {name: a}\n"
    );
    let value = &parse_text("f", &text).unwrap()[0].value["spec"];
    assert_eq!(value["mode"], json!(420));
    assert_eq!((&value["on1"], &value["off1"]), (&json!(true), &json!(false)));
    assert_eq!(value["text"], json!("yes"));
    assert_eq!(value["merged"], json!({"k": 1, "l": 2}));
}

#[test]
fn an_error_names_the_file_the_line_or_the_field() {
    let text = error("apiVersion: v1\nkind: Pod\nmetadata:\n  name: [a\n");
    assert!(text.starts_with("app.yaml:") && !text.starts_with("app.yaml:0"), "{text}");
    assert!(!text.contains('\n'));
    let twice = error("apiVersion: v1\nkind: Pod\nkind: Pod\n");
    assert!(twice.starts_with("app.yaml:3"), "{twice}");
    for (text, field) in [
        ("kind: Pod\nmetadata: {name: a}\n", "document 1: apiVersion: is missing"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "document 1: kind: is missing"),
        ("apiVersion: v1\nkind: Pod\n", "metadata.name: is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n", "generateName"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 12}\n", "put it in quotes"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: Web_1}\n", "\"Web_1\" is no DNS name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: B}\n", "metadata.namespace: \"B\""),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n", "is no DNS label"),
        ("apiVersion: a/b/c\nkind: Pod\nmetadata: {name: a}\n", "is no apiVersion"),
        ("just text\n", "an object was expected"),
    ] {
        let found = error(text);
        assert!(found.contains(field), "{found} should say {field}");
    }
    let rbac =
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'system:node'}\n";
    assert_eq!(parse_text("f", rbac).unwrap().len(), 1);
}

#[test]
fn a_bomb_of_aliases_and_a_file_too_long_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    assert!(matches!(parse_text("bomb.yaml", &bomb), Err(ManifestError::Syntax { .. })));
    let deep = "[".repeat(100_000);
    assert!(matches!(parse_text("deep.yaml", &deep), Err(ManifestError::Syntax { .. })));
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(matches!(parse_text("deep.json", &deep), Err(ManifestError::Syntax { .. })));

    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.yaml");
    fs::write(&long, vec![b'#'; FILE_LIMIT as usize + 1]).unwrap();
    assert!(matches!(read(&[long]), Err(ManifestError::TooLong { .. })));
}

#[test]
fn ten_thousand_objects_in_one_file_are_read() {
    let text: String = (0..10_000).map(|i| format!("{}---\n", pod(&format!("p{i}")))).collect();
    assert_eq!(parse_text("many.yaml", &text).unwrap().len(), 10_000);
}

#[test]
fn a_folder_is_read_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("b")).unwrap();
    fs::write(at("c.yml"), pod("c")).unwrap();
    fs::write(at("b/x.yaml"), pod("x")).unwrap();
    fs::write(at("a.json"), r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#).unwrap();
    fs::write(at("kustomization.yaml"), "resources: [c.yml]\n").unwrap();
    fs::write(at("README.md"), "not a manifest").unwrap();
    let found = read(&[folder.path().to_owned()]).unwrap();
    assert_eq!(found.iter().map(Manifest::name).collect::<Vec<_>>(), ["a", "x", "c"]);

    std::os::unix::fs::symlink(folder.path(), at("loop")).unwrap();
    assert!(matches!(read(&[folder.path().to_owned()]), Err(ManifestError::TooDeep { .. })));
    assert!(matches!(read(&[at("none.yaml")]), Err(ManifestError::Read { .. })));
    fs::write(at("empty.yaml"), "# nothing\n").unwrap();
    assert!(matches!(read(&[at("empty.yaml")]), Err(ManifestError::Empty { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse::text("f.yaml", &bytes, &mut Vec::new());
    }

    #[test]
    fn no_text_like_yaml_makes_it_panic(text in "[a-z:{}\\[\\]&*!|>#'\", \\n-]{0,200}") {
        let _ = parse_text("f.yaml", &text);
    }
}

#[test]
fn an_unknown_field_is_refused_with_its_path_and_what_is_known_is_let_be() {
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    let error =
        parse_text("f.yaml", &pod("{containers: [{name: c, image: i, prots: [{containerPort: 80}]}]}"));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("f.yaml") && text.contains("spec.containers[0].prots"), "{text}");
    for good in [
        "{containers: [{name: c, image: i, ports: [{containerPort: 80}], resources: {limits: {cpu: 100m}}}]}",
        "{containers: [{name: c, image: i, env: [], livenessProbe: {httpGet: {path: /, port: http}}}]}",
    ] {
        parse_text("f.yaml", &pod(good)).unwrap();
    }
    // A kind of somebody's own has the fields that it has.
    parse_text("f.yaml", "apiVersion: a.b/v1\nkind: Thing\nmetadata: {name: a}\nspec: {x: 1}\n").unwrap();
}
