//! Eviction: a pod goes if its disruption budget allows it.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinds;
use crate::label_selector;
use crate::options::{DeleteOptions, Part};
use crate::registry::Registry;
use crate::strategy;

/// Evictions under way that one budget remembers; as kube-apiserver has it.
const MOST_DISRUPTED: usize = 2000;

impl Registry {
    /// Deletes a pod, or refuses with `TooManyRequests` where that would take more pods than a
    /// PodDisruptionBudget leaves.
    pub async fn evict(&self, ns: Option<&str>, name: &str, options: DeleteOptions) -> Result<(), ApiError> {
        let pod = self.get(&kinds::PODS, ns, name).await?;
        let budgets: Vec<_> = self.list(&kinds::POD_DISRUPTION_BUDGETS, ns).0;
        let labels = &pod["metadata"]["labels"];
        let mut chosen = budgets.iter().filter(|b| label_selector::matches(&b["spec"]["selector"], labels));
        let (first, second) = (chosen.next(), chosen.next());
        let (Some(budget), false) = (first, exempt(&pod)) else {
            return self.disrupt(ns, name, options).await;
        };
        if second.is_some() {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        let budget = strategy::name_of(budget).to_owned();
        self.spend(ns, &budget, &pod, options.dry_run).await?;
        let deleted = self.disrupt(ns, name, options.clone()).await;
        if deleted.is_err() && !options.dry_run {
            self.give_back(ns, &budget, name).await?;
        }
        deleted
    }

    /// Deletes a pod, which says first why it goes.
    async fn disrupt(&self, ns: Option<&str>, name: &str, options: DeleteOptions) -> Result<(), ApiError> {
        if !options.dry_run {
            let (uid, version) = (options.uid.clone(), options.resource_version.clone());
            let tell = move |pod: &mut Value| {
                let options = DeleteOptions {
                    uid: uid.clone(),
                    resource_version: version.clone(),
                    ..DeleteOptions::default()
                };
                strategy::check_preconditions(&kinds::PODS, pod, &options)?;
                pod["status"]["conditions"] = told(&pod["status"]["conditions"]);
                Ok(())
            };
            self.modify(&kinds::PODS, ns, name, Part::Status, tell).await?;
        }
        // The condition has changed the version, which has been checked.
        let options = DeleteOptions { resource_version: None, ..options };
        self.delete(&kinds::PODS, ns, name, options).await.map(drop)
    }

    /// Takes one disruption from a budget for a pod.
    async fn spend(
        &self,
        ns: Option<&str>,
        budget: &str,
        pod: &Value,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let (name, ready) = (strategy::name_of(pod).to_owned(), is_ready(pod));
        let take = move |budget: &mut Value| take(budget, &name, ready);
        self.modify_with(&kinds::POD_DISRUPTION_BUDGETS, ns, budget, Part::Status, dry_run, take).await?;
        Ok(())
    }

    /// Forgets a pod that was not deleted; the controller counts it again.
    async fn give_back(&self, ns: Option<&str>, budget: &str, pod: &str) -> Result<(), ApiError> {
        let pod = pod.to_owned();
        let forget = move |budget: &mut Value| {
            if let Some(disrupted) = budget["status"]["disruptedPods"].as_object_mut() {
                disrupted.remove(&pod);
            }
            Ok(())
        };
        self.modify(&kinds::POD_DISRUPTION_BUDGETS, ns, budget, Part::Status, forget).await?;
        Ok(())
    }
}

/// A pod's conditions with the one that an eviction sets.
fn told(conditions: &Value) -> Value {
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    let condition = json!({"type": "DisruptionTarget", "status": "True", "lastTransitionTime": strategy::now(),
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
    match all.iter_mut().find(|c| c["type"] == "DisruptionTarget") {
        Some(known) if known["status"] == "True" => {}
        Some(known) => *known = condition,
        None => all.push(condition),
    }
    Value::Array(all)
}

/// A pod that does not run needs no budget.
fn exempt(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
        || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn take(budget: &mut Value, pod: &str, ready: bool) -> Result<(), ApiError> {
    let name = strategy::name_of(budget).to_owned();
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let (healthy, desired, allowed) =
        (count("currentHealthy"), count("desiredHealthy"), count("disruptionsAllowed"));
    if !ready {
        match budget["spec"]["unhealthyPodEvictionPolicy"].as_str() {
            Some("AlwaysAllow") => return Ok(()),
            // A pod that is not counted takes nothing away.
            _ if healthy >= desired && desired > 0 => return Ok(()),
            _ => {}
        }
    }
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(refused(
            &format!("The disruption budget {name} is still being processed by the server."),
            10,
        ));
    }
    if allowed <= 0 {
        let cause =
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refused(&cause, 0));
    }
    let disrupted = &mut budget["status"]["disruptedPods"];
    if disrupted.as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(&kinds::POD_DISRUPTION_BUDGETS, &name, why));
    }
    if !disrupted.is_object() {
        *disrupted = json!({});
    }
    disrupted[pod] = json!(strategy::now());
    budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
    Ok(())
}

fn refused(cause: &str, retry_after: u32) -> ApiError {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut error = ApiError::new(429, "TooManyRequests", message);
    *error.details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
    if retry_after > 0 {
        error.details["retryAfterSeconds"] = json!(retry_after);
    }
    error
}
