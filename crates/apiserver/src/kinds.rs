//! The kinds that are built in.

use std::borrow::Cow;

use crate::resource::{Resource, Scale};

const NAMESPACED: u8 = 1;
const STATUS: u8 = 2;
/// In kubectl's category `all`.
const ALL: u8 = 4;
const SCALE: u8 = 8;
/// In kubectl's category `api-extensions`.
const EXTENDS: u8 = 32;
/// Answered on creation and never stored.
const REVIEW: u8 = 16;

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static str,
    traits: u8,
) -> Resource {
    const SCALE_PATHS: Scale = Scale {
        spec_path: Cow::Borrowed(".spec.replicas"),
        status_path: Cow::Borrowed(".status.replicas"),
        selector_path: Cow::Borrowed(".spec.selector"),
    };
    Resource {
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        kind: Cow::Borrowed(kind),
        plural: Cow::Borrowed(plural),
        short_names: Cow::Borrowed(short_names),
        categories: Cow::Borrowed(match traits & (ALL | EXTENDS) {
            ALL => "all",
            EXTENDS => "api-extensions",
            _ => "",
        }),
        namespaced: traits & NAMESPACED != 0,
        status: traits & STATUS != 0,
        scale: if traits & SCALE != 0 { Some(SCALE_PATHS) } else { None },
        review: traits & REVIEW != 0,
        schema: None,
        columns: None,
        selectable: Cow::Borrowed(""),
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub static $name: Resource = $value;)*
        /// All built-in kinds, in the order of discovery.
        pub static BUILT_IN: &[&Resource] = &[$(&$name),*];
    };
}

kinds! {
    /// Pods.
    PODS = kind("", "v1", "Pod", "pods", "po", NAMESPACED | STATUS | ALL);
    /// Services.
    SERVICES = kind("", "v1", "Service", "services", "svc", NAMESPACED | STATUS | ALL);
    /// Nodes.
    NODES = kind("", "v1", "Node", "nodes", "no", STATUS);
    /// Namespaces.
    NAMESPACES = kind("", "v1", "Namespace", "namespaces", "ns", STATUS);
    /// Endpoints.
    ENDPOINTS = kind("", "v1", "Endpoints", "endpoints", "ep", NAMESPACED);
    /// ConfigMaps.
    CONFIG_MAPS = kind("", "v1", "ConfigMap", "configmaps", "cm", NAMESPACED);
    /// Secrets.
    SECRETS = kind("", "v1", "Secret", "secrets", "", NAMESPACED);
    /// ServiceAccounts.
    SERVICE_ACCOUNTS = kind("", "v1", "ServiceAccount", "serviceaccounts", "sa", NAMESPACED);
    /// Events.
    EVENTS = kind("", "v1", "Event", "events", "ev", NAMESPACED);
    /// PersistentVolumeClaims.
    PERSISTENT_VOLUME_CLAIMS = kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", NAMESPACED | STATUS);
    /// PersistentVolumes.
    PERSISTENT_VOLUMES = kind("", "v1", "PersistentVolume", "persistentvolumes", "pv", STATUS);
    /// LimitRanges.
    LIMIT_RANGES = kind("", "v1", "LimitRange", "limitranges", "limits", NAMESPACED);
    /// ResourceQuotas.
    RESOURCE_QUOTAS = kind("", "v1", "ResourceQuota", "resourcequotas", "quota", NAMESPACED | STATUS);
    /// ReplicationControllers.
    REPLICATION_CONTROLLERS = kind("", "v1", "ReplicationController", "replicationcontrollers", "rc", NAMESPACED | STATUS | ALL | SCALE);
    /// Deployments.
    DEPLOYMENTS = kind("apps", "v1", "Deployment", "deployments", "deploy", NAMESPACED | STATUS | ALL | SCALE);
    /// ReplicaSets.
    REPLICA_SETS = kind("apps", "v1", "ReplicaSet", "replicasets", "rs", NAMESPACED | STATUS | ALL | SCALE);
    /// StatefulSets.
    STATEFUL_SETS = kind("apps", "v1", "StatefulSet", "statefulsets", "sts", NAMESPACED | STATUS | ALL | SCALE);
    /// DaemonSets.
    DAEMON_SETS = kind("apps", "v1", "DaemonSet", "daemonsets", "ds", NAMESPACED | STATUS | ALL);
    /// ControllerRevisions.
    CONTROLLER_REVISIONS = kind("apps", "v1", "ControllerRevision", "controllerrevisions", "", NAMESPACED);
    /// Jobs.
    JOBS = kind("batch", "v1", "Job", "jobs", "", NAMESPACED | STATUS | ALL);
    /// CronJobs.
    CRON_JOBS = kind("batch", "v1", "CronJob", "cronjobs", "cj", NAMESPACED | STATUS | ALL);
    /// EndpointSlices.
    ENDPOINT_SLICES = kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", NAMESPACED);
    /// Ingresses.
    INGRESSES = kind("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", NAMESPACED | STATUS);
    /// IngressClasses.
    INGRESS_CLASSES = kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", 0);
    /// NetworkPolicies.
    NETWORK_POLICIES = kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", NAMESPACED);
    /// PodDisruptionBudgets.
    POD_DISRUPTION_BUDGETS = kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", NAMESPACED | STATUS);
    /// Leases.
    LEASES = kind("coordination.k8s.io", "v1", "Lease", "leases", "", NAMESPACED);
    /// Roles.
    ROLES = kind("rbac.authorization.k8s.io", "v1", "Role", "roles", "", NAMESPACED);
    /// RoleBindings.
    ROLE_BINDINGS = kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", NAMESPACED);
    /// ClusterRoles.
    CLUSTER_ROLES = kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", 0);
    /// ClusterRoleBindings.
    CLUSTER_ROLE_BINDINGS = kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", 0);
    /// HorizontalPodAutoscalers.
    HORIZONTAL_POD_AUTOSCALERS = kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", NAMESPACED | STATUS | ALL);
    /// HorizontalPodAutoscalers in their first version; the same objects.
    HORIZONTAL_POD_AUTOSCALERS_V1 = kind("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", NAMESPACED | STATUS | ALL);
    /// StorageClasses.
    STORAGE_CLASSES = kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", 0);
    /// PriorityClasses.
    PRIORITY_CLASSES = kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", 0);
    /// CustomResourceDefinitions.
    CUSTOM_RESOURCE_DEFINITIONS = kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd crds", STATUS | EXTENDS);
    /// ValidatingWebhookConfigurations; stored, never called.
    VALIDATING_WEBHOOKS = kind("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", EXTENDS);
    /// MutatingWebhookConfigurations; stored, never called.
    MUTATING_WEBHOOKS = kind("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", EXTENDS);
    /// ValidatingAdmissionPolicies; stored, never asked.
    VALIDATING_POLICIES = kind("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", STATUS | EXTENDS);
    /// ValidatingAdmissionPolicyBindings; stored, never asked.
    VALIDATING_POLICY_BINDINGS = kind("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", EXTENDS);
    /// Events of the events.k8s.io group; the same objects as the core group's.
    EVENTS_V1 = kind("events.k8s.io", "v1", "Event", "events", "ev", NAMESPACED);
    /// Who asks.
    SELF_SUBJECT_REVIEWS = kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", "", REVIEW);
    /// Whose a token is.
    TOKEN_REVIEWS = kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "", REVIEW);
    /// What somebody may do.
    SUBJECT_ACCESS_REVIEWS = kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", "", REVIEW);
    /// What somebody may do in a namespace.
    LOCAL_SUBJECT_ACCESS_REVIEWS = kind("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "", NAMESPACED | REVIEW);
    /// What who asks may do.
    SELF_SUBJECT_ACCESS_REVIEWS = kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", REVIEW);
    /// All that who asks may do.
    SELF_SUBJECT_RULES_REVIEWS = kind("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "", REVIEW);
}

/// The built-in kind with this group and plural, in its preferred version.
pub fn built_in(group: &str, plural: &str) -> Option<&'static Resource> {
    BUILT_IN.iter().copied().find(|r| r.group == group && r.plural == plural)
}
