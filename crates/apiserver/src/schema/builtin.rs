//! The schemas of the built-in kinds, from Kubernetes' published types.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, coordination, core,
    discovery, events, networking, policy, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

use super::Schema;
use super::compile::{Compiler, DEFINITIONS};
use crate::resource::Resource;

/// Group, version and kind.
type Place = (&'static str, &'static str, &'static str);

/// The definitions of all built-in types by their names, and the name of each kind's.
pub(crate) struct Definitions {
    pub(crate) schemas: Map<String, Value>,
    pub(crate) kinds: BTreeMap<Place, String>,
}

fn register<T: JsonSchema + k8s_openapi::Resource>(
    generator: &mut SchemaGenerator,
    kinds: &mut BTreeMap<Place, String>,
) {
    generator.subschema_for::<T>();
    kinds.insert((T::GROUP, T::VERSION, T::KIND), T::schema_name().into_owned());
}

/// Makes the definitions anew: it takes some milliseconds, and megabytes that are seldom needed.
pub(crate) fn definitions() -> Definitions {
    let settings = SchemaSettings::draft07().with(|s| s.definitions_path = DEFINITIONS[1..].into());
    let mut generator = settings.into_generator();
    let mut kinds = BTreeMap::new();
    macro_rules! kinds {
        ($($kind:ty),* $(,)?) => { $(register::<$kind>(&mut generator, &mut kinds);)* };
    }
    kinds![
        core::v1::Pod,
        core::v1::Service,
        core::v1::Node,
        core::v1::Namespace,
        core::v1::Endpoints,
        core::v1::ConfigMap,
        core::v1::Secret,
        core::v1::ServiceAccount,
        core::v1::Event,
        core::v1::PersistentVolume,
        core::v1::PersistentVolumeClaim,
        core::v1::LimitRange,
        core::v1::ResourceQuota,
        core::v1::ReplicationController,
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        apps::v1::StatefulSet,
        apps::v1::DaemonSet,
        apps::v1::ControllerRevision,
        batch::v1::Job,
        batch::v1::CronJob,
        discovery::v1::EndpointSlice,
        networking::v1::Ingress,
        networking::v1::IngressClass,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        coordination::v1::Lease,
        rbac::v1::Role,
        rbac::v1::RoleBinding,
        rbac::v1::ClusterRole,
        rbac::v1::ClusterRoleBinding,
        autoscaling::v1::HorizontalPodAutoscaler,
        autoscaling::v2::HorizontalPodAutoscaler,
        storage::v1::StorageClass,
        scheduling::v1::PriorityClass,
        apiextensions::v1::CustomResourceDefinition,
        admissionregistration::v1::ValidatingWebhookConfiguration,
        admissionregistration::v1::MutatingWebhookConfiguration,
        admissionregistration::v1::ValidatingAdmissionPolicy,
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        events::v1::Event,
        authentication::v1::SelfSubjectReview,
        authentication::v1::TokenReview,
        authentication::v1::TokenRequest,
        authorization::v1::SubjectAccessReview,
        authorization::v1::SelfSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview,
        authorization::v1::LocalSubjectAccessReview,
    ];
    let schemas = generator.take_definitions(true).into_iter().collect();
    Definitions { schemas, kinds }
}

/// The compiled schema of a built-in kind; None when its types are not known.
pub(crate) fn schema(r: &Resource) -> Option<&'static Schema> {
    static ALL: OnceLock<BTreeMap<Place, Schema>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let Definitions { schemas, kinds } = definitions();
        let mut compiler = Compiler::new(&schemas);
        let roots: Vec<_> = kinds.into_iter().map(|(place, name)| (place, compiler.named(&name))).collect();
        let nodes = Arc::new(compiler.finish());
        let schema = |root| Schema { nodes: nodes.clone(), root, source: Value::Null };
        roots.into_iter().map(|(place, root)| (place, schema(root))).collect()
    });
    let place = (&*r.group, &*r.version, &*r.kind);
    all.iter().find(|(known, _)| **known == place).map(|(_, schema)| schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::BUILT_IN;

    #[test]
    fn every_built_in_kind_has_a_schema() {
        for r in BUILT_IN {
            assert!(schema(r).is_some(), "{}", r.qualified_kind());
        }
    }
}
