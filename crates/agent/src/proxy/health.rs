//! What load balancers ask a node: whether its Services are served (`/healthz`, `/livez`), and at a Service's
//! healthCheckNodePort whether endpoints of it are here. The answers are kube-proxy's (KEP-3836).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ProxyStatus;

/// The kernel may be behind the plan for so long before the node counts as unhealthy.
const GRACE: Duration = Duration::from_secs(60);
/// How soon a port that another has is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Connections at once; more wait.
const CONNECTIONS: usize = 64;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;
type Told = watch::Receiver<ProxyStatus>;

/// Answers, for good.
pub(super) async fn keep(healthz: Option<SocketAddr>, mut told: Told) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut listeners: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    let _healthz = healthz.map(|at| tokio::spawn(listen(at, None, told.clone(), room.clone())));
    loop {
        let ports: Vec<u16> = told.borrow_and_update().checks.keys().copied().collect();
        listeners.retain(|port, task| {
            let wanted = ports.contains(port);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for port in ports {
            let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            let task = || tokio::spawn(listen(at, Some(port), told.clone(), room.clone()));
            listeners.entry(port).or_insert_with(task);
        }
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Answers at one address, of the Service whose port it is or of the node.
async fn listen(at: SocketAddr, port: Option<u16>, told: Told, room: Arc<Semaphore>) {
    let mut warned = false;
    loop {
        match open(at) {
            Ok(listener) => serve(&listener, port, &told, &room).await,
            Err(error) if !warned => {
                tracing::warn!("health checks cannot be answered at {at}: {error}");
                warned = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn open(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if at.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
    // Where the kernel has no IPv6.
    let (socket, at) = match socket {
        Err(_) if at.ip().is_unspecified() => {
            (TcpSocket::new_v4()?, SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), at.port()))
        }
        socket => (socket?, at),
    };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(128)
}

/// Until accepting fails.
async fn serve(listener: &TcpListener, port: Option<u16>, told: &Told, room: &Arc<Semaphore>) {
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else { return };
        let told = told.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _ = timeout(PATIENCE, converse(stream, port, told)).await;
        });
    }
}

async fn converse(stream: TcpStream, port: Option<u16>, told: Told) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = match port {
            Some(port) => of_service(&told.borrow(), port, Timestamp::now()),
            None => of_node(request.uri().path(), &told.borrow(), Timestamp::now()),
        };
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // Who asks may close his side at once and still wait for the answer.
    server.half_close(true).keep_alive(false).max_buf_size(8192);
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
}

/// Whether the kernel is as planned, or has not been behind for long.
fn healthy(status: &ProxyStatus, now: Timestamp) -> bool {
    let long = |since: Timestamp| now.duration_since(since).unsigned_abs() > GRACE;
    status.last_sync.is_some() && !status.behind_since.is_some_and(long)
}

fn of_node(path: &str, status: &ProxyStatus, now: Timestamp) -> Answer {
    let good = match path {
        "/healthz" => healthy(status, now) && status.eligible,
        "/livez" => healthy(status, now),
        _ => return answer(StatusCode::NOT_FOUND, "404 page not found\n".into()),
    };
    let updated = status.last_sync.map_or_else(String::new, |at| at.to_string());
    let eligible = status.eligible;
    let text =
        format!(r#"{{"lastUpdated": "{updated}","currentTime": "{now}", "nodeEligible": {eligible}}}"#);
    answer(code(good), text)
}

fn of_service(status: &ProxyStatus, port: u16, now: Timestamp) -> Answer {
    let Some(check) = status.checks.get(&port) else {
        return answer(StatusCode::NOT_FOUND, "404 page not found\n".into());
    };
    let healthy = healthy(status, now);
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        serde_json::json!(check.service.namespace),
        serde_json::json!(check.service.name),
        check.endpoints
    );
    let mut response = answer(code(healthy && check.endpoints > 0), text);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", check.endpoints.into());
    response
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(code: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::ProxyMode;
    use http_body_util::BodyExt as _;
    use weft_model::NamespacedName;
    use weft_service::HealthCheck;

    fn status(now: Timestamp) -> ProxyStatus {
        let check = |endpoints| HealthCheck { service: NamespacedName::new("shop", "web"), endpoints };
        ProxyStatus {
            last_sync: Some(now),
            checks: [(30100, check(2)), (30101, check(0))].into(),
            ..ProxyStatus::new(ProxyMode::Nftables)
        }
    }

    fn text(response: Answer) -> (u16, String) {
        let code = response.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn a_services_check_counts_its_endpoints_here() {
        let now = Timestamp::now();
        let status = status(now);
        let found = of_service(&status, 30100, now);
        assert_eq!(found.headers()["x-load-balancing-endpoint-weight"], "2");
        let (code, body) = text(found);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(code, 200);
        assert_eq!(
            body,
            serde_json::json!({"service": {"namespace": "shop", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true})
        );
        assert_eq!(text(of_service(&status, 30101, now)).0, 503, "none here");
        assert_eq!(text(of_service(&status, 30102, now)).0, 404);
    }

    #[test]
    fn a_node_is_healthy_while_the_kernel_is_not_behind_for_long() {
        let now = Timestamp::now();
        let code = |status: &ProxyStatus, path| text(of_node(path, status, now)).0;
        let mut known = status(now);
        assert_eq!((code(&known, "/healthz"), code(&known, "/livez"), code(&known, "/")), (200, 200, 404));
        known.behind_since = Some(now - Duration::from_secs(30));
        assert_eq!(code(&known, "/healthz"), 200);
        known.behind_since = Some(now - Duration::from_secs(61));
        assert_eq!((code(&known, "/healthz"), text(of_service(&known, 30100, now)).0), (503, 503));
        known.behind_since = None;
        known.eligible = false;
        assert_eq!((code(&known, "/healthz"), code(&known, "/livez")), (503, 200));
        assert_eq!(code(&ProxyStatus::new(ProxyMode::Nftables), "/healthz"), 503, "nothing is done yet");
    }
}
