//! What addresses of load balancers are planned from: core/v1 Service and weft.dev/v1 LoadBalancerPool.

use std::sync::Arc;

use weft_model::NamespacedName;
use weft_model::load_balancer::{Claim, LoadBalancerPool};
use weft_model::service::ServiceKey;

use super::{Kind, Meta};

impl Kind for Claim {
    type Key = ServiceKey;
    const PATH: &'static str = "/api/v1/services";
    const NAME: &'static str = "service";

    fn decode(_: &Meta, json: &str) -> Result<Self, String> {
        Claim::read(&mut serde_json::Deserializer::from_str(json)).map_err(|error| error.to_string())
    }

    fn key(meta: &Meta) -> ServiceKey {
        NamespacedName::new(meta.namespace.clone(), meta.name.clone())
    }
}

impl Kind for LoadBalancerPool {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/loadbalancerpools";
    const NAME: &'static str = "load-balancer pool";
    const OPTIONAL: bool = true;

    fn decode(_: &Meta, json: &str) -> Result<Self, String> {
        LoadBalancerPool::read(&mut serde_json::Deserializer::from_str(json))
            .map_err(|error| error.to_string())
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}
