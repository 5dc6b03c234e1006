//! Every node's sign of life, as its kubelet would give it.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use weft_store::{Api, HEARTBEAT, renew_node_lease};

use crate::conflist::Networks;
use crate::nodes;

/// Renewals under way at once.
const AT_ONCE: usize = 16;
/// After a silence that long the nodes may have been taken for dead.
const SILENCE: Duration = Duration::from_secs(35);

/// Renews the nodes' Leases for good, and reports the nodes ready again after a silence.
pub(crate) async fn keep(api: &Api, names: &[String], networks: &Networks) {
    let mut heard = Instant::now();
    loop {
        let failed = stream::iter(names).map(|name| renew_node_lease(api, name)).buffer_unordered(AT_ONCE);
        let failed = failed.filter(|done| std::future::ready(done.is_err())).count().await;
        if failed > 0 {
            tracing::debug!("{failed} of {} nodes could not tell that they live", names.len());
            // The API may have moved, or its token changed.
            let _ = api.reload().await;
        } else {
            let silence = std::mem::replace(&mut heard, Instant::now()).elapsed();
            if silence > SILENCE {
                let up = names.iter().filter(|name| networks.of(name).borrow().is_some());
                stream::iter(up).for_each_concurrent(AT_ONCE, |name| nodes::set_ready(api, name)).await;
            }
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}
