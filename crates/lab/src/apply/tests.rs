use super::merge::{LAST_APPLIED, patch, with_last_applied};
use super::*;

fn config_map(labels: Value, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": labels}, "data": data})
}

#[test]
fn a_field_left_out_is_removed_and_what_others_set_stays() {
    let first =
        with_last_applied(&config_map(json!({"mine": "1", "old": "1"}), json!({"k": "v"})), Some("shop"));
    let mut present = first.clone();
    present["metadata"]["labels"]["theirs"] = json!("2");
    present["metadata"]["resourceVersion"] = json!("7");
    present["status"] = json!({"any": true});
    assert_eq!(patch(&present, &first), json!({}));

    let second = with_last_applied(&config_map(json!({"mine": "2"}), json!({"k": "v"})), Some("shop"));
    let patch = patch(&present, &second);
    assert_eq!(patch["metadata"]["labels"], json!({"mine": "2", "old": null}));
    assert_eq!(patch.get("data"), None);
    assert!(patch["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap().contains("\"mine\":\"2\""));
}

#[test]
fn an_object_is_written_without_what_only_the_server_sets() {
    let mut given = config_map(json!({}), json!({}));
    given["metadata"]["resourceVersion"] = json!("3");
    given["metadata"]["uid"] = json!("x");
    given["metadata"]["namespace"] = json!("ignored");
    let cluster_wide = with_last_applied(&given, None);
    assert_eq!(cluster_wide["metadata"].get("namespace"), None);
    assert_eq!(cluster_wide["metadata"].get("uid"), None);
    assert_eq!(with_last_applied(&given, Some("n"))["metadata"]["namespace"], "n");
    let long = config_map(json!({}), json!({"k": "v".repeat(300_000)}));
    assert_eq!(with_last_applied(&long, None)["metadata"].get("annotations"), None);
}

#[test]
fn a_line_reads_as_kubectl_prints_it() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
    let manifest = &crate::manifest::parse_text("web.yaml", text).unwrap()[0];
    let line = |namespace: &str, outcome| applied(manifest, Some(namespace.into()), outcome).to_string();
    assert_eq!(line("default", Outcome::Created), "deployment.apps/web created");
    assert_eq!(line("shop", Outcome::Configured), "deployment.apps/web -n shop configured");
    assert_eq!(
        line("default", Outcome::Failed("spec: no".into())),
        "deployment.apps/web failed: spec: no (web.yaml)"
    );
    let entry = serde_json::to_value(applied(manifest, None, Outcome::Failed("no".into()))).unwrap();
    assert_eq!((&entry["outcome"], &entry["reason"]), (&json!("failed"), &json!("no")));
}
