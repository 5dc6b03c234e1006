//! Which IP families a Service has: what its author said, completed from what the cluster has.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{headless, needs_cluster_ip, texts};
use crate::error::FieldError;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{list, same, text, unset};

/// `IPv4` or `IPv6`.
pub(super) fn of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The families that the cluster's ranges have; the first is the default.
fn configured(cidrs: &[IpNet]) -> Vec<&'static str> {
    let mut families: Vec<_> = cidrs.iter().map(|c| of(c.addr())).collect();
    families.dedup();
    families.truncate(2);
    families
}

/// Whether this update leaves a Service alone that prefers two stacks: it does not follow the
/// cluster from one family to two without being asked.
pub(super) fn untouched(before: Option<&Value>, spec: &Value) -> bool {
    before.is_some_and(|before| {
        before["type"] == spec["type"]
            && needs_cluster_ip(spec)
            && spec["ipFamilyPolicy"] == "PreferDualStack"
            && before["ipFamilyPolicy"] == "PreferDualStack"
            && same(&before["clusterIPs"], &spec["clusterIPs"])
            && same(&before["ipFamilies"], &spec["ipFamilies"])
    })
}

/// Completes `ipFamilyPolicy` and `ipFamilies`.
pub(super) fn settle(
    before: Option<&Value>,
    spec: &mut Value,
    cidrs: &[IpNet],
) -> Result<(), Vec<FieldError>> {
    if !needs_cluster_ip(spec) || untouched(before, spec) {
        return Ok(());
    }
    let selectorless = spec["clusterIP"] == "None" && unset(&spec["selector"]);
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = match before.map(|b| &b["ipFamilyPolicy"]).filter(|p| !p.is_null()) {
            Some(policy) => policy.clone(),
            None if selectorless => json!("RequireDualStack"),
            None => json!("SingleStack"),
        };
    }
    let mut errors = Errors::default();
    super::check::addresses(before, spec, &mut errors);
    refuse(errors)?;
    let mut errors = Errors::default();
    narrow(before, spec, &mut errors);
    policy_fits(spec, &mut errors);
    let mut families = inferred(spec, &configured(cidrs), &mut errors);
    refuse(errors)?;
    if selectorless {
        complete_selectorless(spec, &mut families, configured(cidrs).first().copied().unwrap_or("IPv4"));
    } else {
        complete(spec, &mut families, &configured(cidrs))?;
    }
    spec["ipFamilies"] = json!(families);
    Ok(())
}

fn refuse(errors: Errors) -> Result<(), Vec<FieldError>> {
    if errors.0.is_empty() { Ok(()) } else { Err(errors.0) }
}

/// An update to one stack gives the second address back; one that only leaves it out must say so.
fn narrow(before: Option<&Value>, spec: &mut Value, errors: &mut Errors) {
    let Some(before) = before else { return };
    let fields = [("clusterIPs", "secondary cluster IP"), ("ipFamilies", "secondary IP family")];
    for (field, what) in fields {
        let (had, has) = (list(&before[field]).len(), list(&spec[field]).len());
        if spec["ipFamilyPolicy"] == "SingleStack" {
            if same(&before[field], &spec[field]) && has > 1 {
                spec[field] = json!([spec[field][0]]);
            }
        } else if has != 0 && has < had {
            let rule = format!("must be 'SingleStack' to release the {what}");
            errors.invalid(&Path::new("spec.ipFamilyPolicy"), &spec["ipFamilyPolicy"], &rule);
        }
    }
}

fn policy_fits(spec: &Value, errors: &mut Errors) {
    if spec["ipFamilyPolicy"] != "SingleStack" {
        return;
    }
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if list(&spec[field]).len() == 2 {
            let rule =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&Path::new("spec.ipFamilyPolicy"), &spec["ipFamilyPolicy"], &rule);
        }
    }
}

/// The families said, and those of the addresses said.
fn inferred(spec: &Value, configured: &[&str], errors: &mut Errors) -> Vec<String> {
    let mut families = texts(&spec["ipFamilies"]);
    if headless(spec) {
        return families;
    }
    for (index, address) in list(&spec["clusterIPs"]).iter().enumerate().skip(families.len()) {
        let Ok(family) = text(address).parse().map(of) else { continue };
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let rule = format!("{family} is not configured on this cluster");
            errors.invalid(&Path::new("spec.clusterIPs").at(index), &spec["clusterIPs"], &rule);
        }
    }
    families
}

fn other(family: &str) -> String {
    if family == "IPv4" { "IPv6".into() } else { "IPv4".into() }
}

/// A headless Service without selector may have any family: its author makes its endpoints.
fn complete_selectorless(spec: &Value, families: &mut Vec<String>, default: &str) {
    if families.is_empty() {
        families.push(default.to_owned());
    }
    if families.len() < 2 && spec["ipFamilyPolicy"] != "SingleStack" {
        families.push(other(&families[0]));
    }
}

fn complete(spec: &Value, families: &mut Vec<String>, configured: &[&str]) -> Result<(), Vec<FieldError>> {
    let mut errors = Errors::default();
    if spec["ipFamilyPolicy"] == "RequireDualStack" && configured.len() < 2 {
        let rule = "this cluster is not configured for dual-stack services";
        errors.invalid(&Path::new("spec.ipFamilyPolicy"), &spec["ipFamilyPolicy"], rule);
    }
    for (index, family) in families.iter().enumerate().filter(|(_, f)| !configured.contains(&f.as_str())) {
        let at = Path::new("spec.ipFamilies").at(index);
        errors.invalid(&at, &json!(family), "not configured on this cluster");
    }
    refuse(errors)?;
    if families.is_empty() {
        families.extend(configured.first().map(|f| (*f).to_owned()));
    }
    if spec["ipFamilyPolicy"] != "SingleStack" && families.len() == 1 && configured.len() == 2 {
        families.push(other(&families[0]));
    }
    Ok(())
}
