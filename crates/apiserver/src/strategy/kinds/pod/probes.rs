//! Probes and hooks of containers.

use serde_json::{Value, json};

use super::super::service::port_or_name;
use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{int, numbered, text, unset};

const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Checks a container's hooks and probes.
pub(super) fn check(container: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let grace = int(&spec["terminationGracePeriodSeconds"]);
    let (hooks, at_hooks) = (&container["lifecycle"], at.field("lifecycle"));
    for hook in ["postStart", "preStop"].into_iter().filter(|h| !hooks[*h].is_null()) {
        handler(&hooks[hook], Some(grace), &at_hooks.field(hook), errors);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(&container[kind], kind, &at.field(kind), errors);
    }
}

fn probe(probe: &Value, kind: &str, at: &Path, errors: &mut Errors) {
    if probe.is_null() {
        return;
    }
    handler(probe, None, at, errors);
    let numbers =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    numbers.iter().for_each(|f| errors.not_negative(&at.field(f), &probe[*f]));
    let grace = &probe["terminationGracePeriodSeconds"];
    let at_grace = at.field("terminationGracePeriodSeconds");
    if kind == "readinessProbe" {
        if !grace.is_null() {
            errors.invalid(&at_grace, grace, "must not be set for readinessProbes");
        }
        return;
    }
    if !grace.is_null() && int(grace) <= 0 {
        errors.invalid(&at_grace, grace, "must be greater than 0");
    }
    if int(&probe["successThreshold"]) != 1 {
        errors.invalid(&at.field("successThreshold"), &json!(int(&probe["successThreshold"])), "must be 1");
    }
}

/// Checks that there is one way of asking, and that one; `grace` is that of a hook, which may sleep.
fn handler(handler: &Value, grace: Option<i64>, at: &Path, errors: &mut Errors) {
    let given = HANDLERS.iter().filter(|h| !handler[**h].is_null() && (grace.is_some() || **h != "sleep"));
    let mut count = 0;
    for field in given {
        let (value, at) = (&handler[*field], at.field(field));
        count += 1;
        if count > 1 {
            errors.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match *field {
            "exec" if unset(&value["command"]) => errors.required(&at.field("command"), ""),
            "httpGet" => http_get(value, &at, errors),
            "tcpSocket" => port_or_name(&value["port"], &at.field("port"), errors),
            "grpc" => errors.port(&at.field("port"), &value["port"]),
            "sleep" => sleep(value, grace.unwrap_or(0), &at, errors),
            _ => {}
        }
    }
    if count == 0 {
        errors.required(at, "must specify a handler type");
    }
}

fn http_get(get: &Value, at: &Path, errors: &mut Errors) {
    port_or_name(&get["port"], &at.field("port"), errors);
    errors.one_of(&at.field("scheme"), &get["scheme"], &["HTTP", "HTTPS"]);
    for (_, header) in numbered(&get["httpHeaders"]) {
        let name = text(&header["name"]);
        errors.all(&at.field("httpHeaders"), &json!(name), format::http_header(name));
    }
}

fn sleep(sleep: &Value, grace: i64, at: &Path, errors: &mut Errors) {
    let seconds = int(&sleep["seconds"]);
    if seconds < 0 || seconds > grace {
        let rule = format!(
            "must be non-negative and less than terminationGracePeriodSeconds ({grace}). Must be used with terminationGracePeriodSeconds set"
        );
        errors.invalid(at, &json!(seconds), &rule);
    }
}
