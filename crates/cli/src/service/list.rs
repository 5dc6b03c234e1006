//! `weft service list`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;
use weft_model::service::Service;
use weft_service::ServicePlan;

use super::{ListArgs, planned};
use crate::args::StatusOutput;
use crate::exit;
use crate::listing::print;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    cluster_ips: Vec<String>,
    external_ips: Vec<String>,
    ports: Vec<String>,
    /// Whether nodes lead its clients: not of a headless one, nor of another proxy's.
    served: bool,
    /// How many endpoints a client of the node may be led to.
    endpoints: usize,
    internal_policy: &'static str,
    external_policy: &'static str,
    /// In seconds.
    affinity: Option<u32>,
    /// What of it is not done, each in one sentence.
    problems: Vec<String>,
}

pub(super) async fn run(options: &ListArgs) -> anyhow::Result<u8> {
    let (cluster, planner) = planned(&options.cluster, &options.view).await?;
    let services = cluster.services.values();
    let wanted = |service: &&std::sync::Arc<Service>| {
        options.namespace.as_ref().is_none_or(|namespace| *service.namespace == **namespace)
    };
    let rows: Vec<Row> = services.filter(wanted).map(|service| row(service, planner.plan())).collect();
    let wide = options.view.output == StatusOutput::Wide;
    let mut head =
        vec!["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "ENDPOINTS", "PROBLEMS"];
    head.extend(wide.then_some(["INTERNAL", "EXTERNAL", "AFFINITY"]).into_iter().flatten());
    let cells = rows.iter().map(|row| cells(row, wide)).collect();
    print(options.view.output, &rows, &head, cells)?;
    Ok(exit::DONE)
}

fn row(service: &Service, plan: &ServicePlan) -> Row {
    let texts = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let port = |port: &weft_model::service::ServicePort| match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    };
    let key = service.key();
    let frontends = plan.frontends.values().filter(|frontend| frontend.service == key);
    let endpoints: BTreeSet<SocketAddr> =
        frontends.flat_map(|frontend| frontend.all.backends()).map(|backend| backend.address).collect();
    let policy = |local| if local { "Local" } else { "Cluster" };
    let refused = plan.refused.get(&key).into_iter().flatten();
    Row {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        kind: service.kind.to_string(),
        cluster_ips: texts(&service.cluster_ips),
        external_ips: texts(&[&service.load_balancer_ips[..], &service.external_ips[..]].concat()),
        ports: service.ports.iter().map(port).collect(),
        served: service.proxy.is_none() && !service.headless(),
        endpoints: endpoints.len(),
        internal_policy: policy(service.internal_local),
        external_policy: policy(service.external_local),
        affinity: service.affinity,
        problems: refused.map(ToString::to_string).collect(),
    }
}

fn cells(row: &Row, wide: bool) -> Vec<String> {
    let or = |list: &[String], none: &str| if list.is_empty() { none.to_owned() } else { list.join(",") };
    let problems = if wide { or(&row.problems, "-") } else { row.problems.len().to_string() };
    let mut cells = vec![
        row.namespace.clone(),
        row.name.clone(),
        row.kind.clone(),
        or(&row.cluster_ips, "None"),
        or(&row.external_ips, "<none>"),
        or(&row.ports, "<none>"),
        // Who asks for it by DNS gets them all, and no proxy counts them.
        if row.served { row.endpoints.to_string() } else { "-".to_owned() },
        problems,
    ];
    if wide {
        let affinity =
            row.affinity.map_or_else(|| "None".to_owned(), |seconds| format!("ClientIP {seconds}s"));
        cells.extend([row.internal_policy.to_owned(), row.external_policy.to_owned(), affinity]);
    }
    cells
}
