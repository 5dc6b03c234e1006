//! The cluster at one moment, for who does not stay.

use std::sync::Arc;

use imbl::OrdMap;
use weft_model::Cluster;

use crate::decode::Kind;
use crate::reflector::{Ask, Reflector};
use crate::{Api, Error};

/// Objects in one page of a list.
const PAGE: usize = 500;

/// Lists everything but Services once. Of a kind that the cluster does not have there is nothing.
pub async fn snapshot(api: &Api) -> Result<Cluster, Error> {
    Ok(Cluster {
        nodes: list(api).await?,
        pods: list(api).await?,
        namespaces: list(api).await?,
        pools: list(api).await?,
        blocks: list(api).await?,
        bgp_configurations: list(api).await?,
        bgp_peers: list(api).await?,
        bgp_filters: list(api).await?,
        ..Cluster::default()
    })
}

/// Lists the Services and their endpoints as well.
pub async fn snapshot_with_services(api: &Api) -> Result<Cluster, Error> {
    Ok(Cluster { services: list(api).await?, slices: list(api).await?, ..snapshot(api).await? })
}

async fn list<K: Kind>(api: &Api) -> Result<OrdMap<K::Key, Arc<K>>, Error> {
    let mut reflector = Reflector::<K>::new(OrdMap::new());
    while let Ask::Page { token, whole } = reflector.request() {
        match api.list_page(K::PATH, if whole { 0 } else { PAGE }, token.as_deref()).await {
            Ok(page) => _ = reflector.handle_page(page),
            Err(error) if K::OPTIONAL && error.not_found() => return Ok(OrdMap::new()),
            // A list whose pages grew too old is asked for anew, once in one piece.
            Err(error) if error.expired() && !whole => _ = reflector.handle_error(&error, 0.0),
            Err(error) => return Err(error),
        }
    }
    Ok(reflector.objects().clone())
}
