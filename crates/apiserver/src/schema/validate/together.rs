//! Schemas that are joined: `allOf`, `anyOf`, `oneOf`, `not`.

use serde_json::Value;

use super::Run;
use crate::error::FieldError;
use crate::schema::node::{Checks, Id};

impl Run<'_> {
    pub(super) fn together(&mut self, value: &Value, checks: &Checks) {
        let path = format!("{:?}", self.path.text());
        if !checks.any_of.is_empty() {
            let outcomes = self.each(value, &checks.any_of);
            if outcomes.iter().all(|errors| !errors.is_empty()) {
                self.unplaced(&format!("{path} must validate at least one schema (anyOf)"));
                self.nearest(outcomes);
            }
        }
        if !checks.one_of.is_empty() {
            let outcomes = self.each(value, &checks.one_of);
            let valid = outcomes.iter().filter(|errors| errors.is_empty()).count();
            let found = match valid {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            if valid != 1 {
                self.unplaced(&format!("{path} must validate one and only one schema (oneOf). {found}"));
            }
            if valid == 0 {
                self.nearest(outcomes);
            }
        }
        if !checks.all_of.is_empty() {
            let outcomes = self.each(value, &checks.all_of);
            let valid = outcomes.iter().filter(|errors| errors.is_empty()).count();
            let none = if valid == 0 { ". None validated" } else { "" };
            let all = valid == outcomes.len();
            outcomes.into_iter().flatten().for_each(|error| self.push(error));
            if !all {
                self.unplaced(&format!("{path} must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(not) = checks.not
            && self.each(value, &[not]).iter().all(Vec::is_empty)
        {
            self.unplaced(&format!("{path} must not validate the schema (not)"));
        }
    }

    fn each(&mut self, value: &Value, ids: &[Id]) -> Vec<Vec<FieldError>> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for id in ids {
            let before = std::mem::take(&mut self.errors);
            self.value(value, *id);
            outcomes.push(std::mem::replace(&mut self.errors, before));
        }
        outcomes
    }

    /// Adds the errors of the alternative that comes nearest.
    fn nearest(&mut self, outcomes: Vec<Vec<FieldError>>) {
        let nearest = outcomes.into_iter().min_by_key(Vec::len);
        nearest.into_iter().flatten().for_each(|error| self.push(error));
    }
}
