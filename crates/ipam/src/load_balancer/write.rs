//! The writes that bring statuses to a plan.

use serde_json::{Value, json};
use weft_model::load_balancer::{CONDITION, Claim, LoadBalancerPool, POOL_READY, Verdict};

use super::plan::{Outcome, PoolStatus};

/// A write, and what people should be told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// A JSON merge patch of the object with its status; it compares the version that it was planned for.
    pub patch: Value,
    /// What the condition says now, where that is new.
    pub told: Option<Verdict>,
}

/// What to write to a Service, if anything; `now` is a time as Kubernetes writes it.
pub fn service_patch(claim: &Claim, outcome: &Outcome, now: &str) -> Option<Patch> {
    let mut status = json!({});
    let held: Vec<_> = claim.held.iter().map(|held| held.ip.filter(|_| held.vip)).collect();
    if let Some(ips) = &outcome.ips
        && !held.iter().eq(ips.iter().map(|ip| Some(*ip)).collect::<Vec<_>>().iter())
    {
        let entries: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let ingress = if entries.is_empty() { Value::Null } else { json!(entries) };
        status["loadBalancer"] = json!({"ingress": ingress});
    }
    let told = (claim.verdict() != outcome.verdict).then(|| outcome.verdict.clone());
    if let Some(verdict) = &told {
        status["conditions"] = conditions(&claim.conditions, CONDITION, verdict.as_ref(), now);
    }
    let meta = json!({"uid": claim.uid, "resourceVersion": claim.version});
    let changed = status.as_object().is_some_and(|status| !status.is_empty());
    changed.then(|| Patch { patch: json!({"metadata": meta, "status": status}), told: told.flatten() })
}

/// What to write to a pool, if anything; `now` is a time as Kubernetes writes it.
pub fn pool_patch(pool: &LoadBalancerPool, status: &PoolStatus, now: &str) -> Option<Patch> {
    let (old, PoolStatus { assigned, available, verdict }) = (&pool.status, status);
    let counted = old["assigned"] == *assigned && old["available"] == *available;
    let before = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == POOL_READY);
    let same = before.is_some_and(|c| {
        c["status"] == word(verdict.good)
            && c["reason"] == *verdict.reason
            && c["message"] == *verdict.message
    });
    if counted && same {
        return None;
    }
    let mut new = json!({"assigned": assigned, "available": available});
    if !same {
        new["conditions"] = conditions(&old["conditions"], POOL_READY, Some(verdict), now);
    }
    let meta = json!({"uid": pool.uid, "resourceVersion": pool.version});
    let told = (!same).then(|| verdict.clone());
    Some(Patch { patch: json!({"metadata": meta, "status": new}), told })
}

/// The conditions with one set or taken away; its time changes only with its status.
fn conditions(old: &Value, kind: &str, verdict: Option<&Verdict>, now: &str) -> Value {
    let list = || old.as_array().into_iter().flatten();
    let mut conditions: Vec<Value> = list().filter(|c| c["type"] != kind).cloned().collect();
    if let Some(verdict) = verdict {
        let status = word(verdict.good);
        let before = list().find(|c| c["type"] == kind && c["status"] == status);
        let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        conditions.push(json!({"type": kind, "status": status, "reason": verdict.reason,
            "message": verdict.message, "lastTransitionTime": since}));
    }
    if conditions.is_empty() { Value::Null } else { json!(conditions) }
}

fn word(good: bool) -> &'static str {
    if good { "True" } else { "False" }
}
