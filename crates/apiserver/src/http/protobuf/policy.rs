//! Tables of deletions, evictions and disruption budgets.

use super::{Field, Kind, META};
use Kind::{Bool, Int, IntOrText, Labels, Message, Messages, Text, Texts};

const PRECONDITIONS: &[Field] = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Int),
    (2, "preconditions", Message(PRECONDITIONS)),
    (3, "orphanDependents", Bool),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];
const EVICTION: &[Field] = &[(1, "metadata", Message(META)), (2, "deleteOptions", Message(DELETE_OPTIONS))];
const EXPRESSION: &[Field] = &[(1, "key", Text), (2, "operator", Text), (3, "values", Texts)];
const SELECTOR: &[Field] = &[(1, "matchLabels", Labels), (2, "matchExpressions", Messages(EXPRESSION))];
const BUDGET: &[Field] = &[
    (1, "metadata", Message(META)),
    (
        2,
        "spec",
        Message(&[
            (1, "minAvailable", IntOrText),
            (2, "selector", Message(SELECTOR)),
            (3, "maxUnavailable", IntOrText),
            (4, "unhealthyPodEvictionPolicy", Text),
        ]),
    ),
];

/// The table of one of these kinds. Every group has a DeleteOptions of its own name.
pub(super) fn table(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    match (api_version, kind) {
        (_, "DeleteOptions") => Some(DELETE_OPTIONS),
        ("policy/v1", "Eviction") => Some(EVICTION),
        ("policy/v1", "PodDisruptionBudget") => Some(BUDGET),
        _ => None,
    }
}
