//! Tables of the kinds of authentication, authorization and RBAC.

use super::{Field, Kind, META};
use Kind::{Int, Labels, Message, Messages, Text, Texts};

const RULE: &[Field] = &[
    (1, "verbs", Texts),
    (2, "apiGroups", Texts),
    (3, "resources", Texts),
    (4, "resourceNames", Texts),
    (5, "nonResourceURLs", Texts),
];
const SELECTOR: &[Field] = &[(1, "matchLabels", Labels)];
const AGGREGATION: &[Field] = &[(1, "clusterRoleSelectors", Messages(SELECTOR))];
const ROLE: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "rules", Messages(RULE)),
    (3, "aggregationRule", Message(AGGREGATION)),
];
const SUBJECT: &[Field] =
    &[(1, "kind", Text), (2, "apiGroup", Text), (3, "name", Text), (4, "namespace", Text)];
const ROLE_REF: &[Field] = &[(1, "apiGroup", Text), (2, "kind", Text), (3, "name", Text)];
const BINDING: &[Field] =
    &[(1, "metadata", Message(META)), (2, "subjects", Messages(SUBJECT)), (3, "roleRef", Message(ROLE_REF))];
const BOUND: &[Field] = &[(1, "kind", Text), (2, "apiVersion", Text), (3, "name", Text), (4, "uid", Text)];
const TOKEN_REQUEST: &[Field] = &[
    (1, "metadata", Message(META)),
    (
        2,
        "spec",
        Message(&[
            (1, "audiences", Texts),
            (3, "boundObjectRef", Message(BOUND)),
            (4, "expirationSeconds", Int),
        ]),
    ),
];
const TOKEN_REVIEW: &[Field] =
    &[(1, "metadata", Message(META)), (2, "spec", Message(&[(1, "token", Text), (2, "audiences", Texts)]))];
const SELF_REVIEW: &[Field] = &[(1, "metadata", Message(META))];
const RESOURCE: &[Field] = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const PATH: &[Field] = &[(1, "path", Text), (2, "verb", Text)];
const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", Message(META)),
    (
        2,
        "spec",
        Message(&[
            (1, "resourceAttributes", Message(RESOURCE)),
            (2, "nonResourceAttributes", Message(PATH)),
            (3, "user", Text),
            (4, "groups", Texts),
            (6, "uid", Text),
        ]),
    ),
];
const RULES_REVIEW: &[Field] =
    &[(1, "metadata", Message(META)), (2, "spec", Message(&[(1, "namespace", Text)]))];

/// The table of a kind of these groups.
pub(super) fn table(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("rbac.authorization.k8s.io/v1", "Role" | "ClusterRole") => ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding" | "ClusterRoleBinding") => BINDING,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "TokenReview") => TOKEN_REVIEW,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SELF_REVIEW,
        (
            "authorization.k8s.io/v1",
            "SubjectAccessReview" | "SelfSubjectAccessReview" | "LocalSubjectAccessReview",
        ) => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        _ => return None,
    })
}
