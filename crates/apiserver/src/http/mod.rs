//! The API over HTTP: who may ask, what is asked, and the answer.

mod accept;
mod asked;
mod backup;
mod body;
mod continuation;
mod delete;
mod discovery;
mod fields;
mod labels;
mod manager;
mod openapi;
mod options;
mod path;
mod protobuf;
mod query;
mod reply;
mod reviews;
mod scale;
mod selector;
mod table;
mod token;
mod watch;
mod write;
mod yaml;

mod limits;
mod list;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch as signal;

use crate::auth::{Attributes, Audit, Auth, Certificate, Guard, Line, User};
use crate::error::{ApiError, FieldError};
use crate::registry::Registry;
use crate::resource::Resource;
pub use limits::Limits;
pub(crate) use limits::{Counts, InFlight};
use options::ListOptions;
use path::{Path, Target};
pub use protobuf::parse as decode_protobuf;
use query::Query;
pub(crate) use query::percent_decode;
pub(crate) use reply::Reply;

/// All that an answer needs.
pub(crate) struct App {
    pub(crate) objects: Registry,
    pub(crate) auth: Arc<Auth>,
    pub(crate) audit: Audit,
    pub(crate) in_flight: InFlight,
    /// Turns true when the server ends, so that watches end too.
    pub(crate) ending: signal::Receiver<bool>,
}

/// Who is at the other end of a connection.
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// The certificate that it has shown.
    pub(crate) certificate: Option<Certificate>,
}

/// One request that is understood so far.
struct Call {
    app: Arc<App>,
    /// The objects, as this request's user may change them.
    registry: Registry,
    user: User,
    method: Method,
    query: Query,
    headers: HeaderMap,
}

impl Call {
    /// The error about an option of the request, named by what it does.
    fn bad_option(&self, error: FieldError) -> ApiError {
        let kind = match self.method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            _ => "DeleteOptions",
        };
        ApiError::invalid_options(kind, &[error])
    }

    /// Whether nothing shall be written.
    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let known = ["All".to_owned()];
                Err(self.bad_option(FieldError::not_supported("dryRun", &json!([other]), &known)))
            }
        }
    }
}

/// Answers one request; an error becomes a `Status`.
pub(crate) async fn answer(app: Arc<App>, client: Arc<Client>, request: Request<Incoming>) -> Reply {
    let received = jiff::Timestamp::now();
    let (parts, body) = request.into_parts();
    let mut seen = None;
    let outcome = route(&app, &client, &parts, body, &mut seen).await;
    let reply = outcome.unwrap_or_else(|error| {
        if error.code >= 500 {
            tracing::warn!(client = %client.address, method = %parts.method, path = %parts.uri.path(), %error, "request failed");
        }
        reply::error(&error)
    });
    if let Some(Seen { user, acting, asked, version }) = &seen
        && Line::wanted(asked)
    {
        let (parts, address, code) = (&parts, client.address, reply.status());
        app.audit.tell(&Line { parts, address, user, acting, asked, version, code, received }).await;
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default()).unwrap_or_default();
    if query.flag("watch") {
        return reply;
    }
    let reply = if query.flag("pretty") { reply::pretty(reply).await } else { reply };
    if accept::wants_yaml(&parts.headers) { reply::as_yaml(reply) } else { reply }
}

/// What is known of a request when it is decided on.
struct Seen {
    /// Who has shown who it is.
    user: User,
    /// As whom it acts.
    acting: User,
    asked: Attributes,
    version: String,
}

async fn route(
    app: &Arc<App>,
    client: &Client,
    parts: &http::request::Parts,
    body: Incoming,
    seen: &mut Option<Seen>,
) -> Result<Reply, ApiError> {
    let path = path::parse(parts.uri.path());
    let open = matches!(path, Ok(Path::Health | Path::Ready | Path::Version));
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let asked = asked::of(parts, path.as_ref().ok(), query.as_ref().unwrap_or(&Query::default()));
    let version = match &path {
        Ok(Path::Object(target)) => target.version.clone(),
        _ => String::new(),
    };
    // Who cannot show who it is has tried to write all the same.
    let nobody = User::default();
    let Seen { user, acting, asked, .. } =
        seen.insert(Seen { user: nobody.clone(), acting: nobody, asked, version });
    *user = app.auth.authenticate(client.certificate.as_ref(), &parts.headers, open)?;
    *acting = user.clone();
    *acting = app.auth.acting(user.clone(), &parts.headers)?;
    let query = query?;
    app.auth.require(acting, asked)?;
    let registry = app.objects.guarded(Guard::new(app.auth.clone(), acting.clone()));
    let (user, method, headers) = (acting.clone(), parts.method.clone(), parts.headers.clone());
    let call = Call { app: app.clone(), registry, user, method, query, headers };
    if asked.verb == "watch" {
        let place = app.in_flight.watch(acting)?;
        let reply = handle(call, path?, parts, body).await?;
        return Ok(match place {
            Some(place) => place.hold(reply),
            None => reply,
        });
    }
    let _place = app.in_flight.enter(acting, Line::wanted(asked))?;
    app.in_flight.in_time(handle(call, path?, parts, body)).await
}

async fn handle(
    call: Call,
    path: Path,
    parts: &http::request::Parts,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let target = match path {
        Path::Object(target) => {
            accept::check(&parts.headers)?;
            target
        }
        other => {
            return match parts.method {
                Method::GET | Method::HEAD if other == Path::Ready => {
                    // One that cannot reach the objects is not to be asked for them.
                    call.registry.current().await?;
                    Ok(reply::text("ok"))
                }
                Method::GET if other == Path::Backup => backup::answer(&call).await,
                Method::GET | Method::HEAD => discovery::answer(&call, &other),
                _ => Err(not_allowed()),
            };
        }
    };
    let kind = call.registry.kind(&target.group, &target.version, &target.plural);
    let Some(kind) = kind else { return Err(unknown(&target.group)) };
    if kind.namespaced != target.namespace.is_some() && (target.name.is_some() || target.namespace.is_some())
    {
        return Err(ApiError::no_such_path());
    }
    if kind.review {
        return reviews::answer(&call, &kind, &target, &parts.method, body).await;
    }
    dispatch(call, &kind, &target, &parts.method, body).await
}

async fn dispatch(
    call: Call,
    r: &Resource,
    target: &Target,
    method: &Method,
    body: Incoming,
) -> Result<Reply, ApiError> {
    match (method, target.name.as_deref(), target.part.as_deref()) {
        (_, Some(name), Some(part)) if !has_part(r, part) => match r.schema {
            Some(_) => Err(ApiError::not_found(r, name)),
            None => Err(ApiError::no_such_path()),
        },
        (&Method::GET | &Method::HEAD, None, _) if target.watch || call.query.flag("watch") => {
            watch::answer(&call, r, target).await
        }
        (&Method::GET | &Method::HEAD, None, _) => list::answer(&call, r, target).await,
        (&Method::POST, None, _) if r.namespaced && target.namespace.is_none() => Err(not_allowed()),
        (&Method::POST, None, _) => write::create(&call, r, target, body).await,
        (&Method::DELETE, None, _) if r.plural == "namespaces" && r.group.is_empty() => Err(not_allowed()),
        (&Method::DELETE, None, _) => delete::collection(&call, r, target, body).await,
        (
            &Method::GET | &Method::HEAD,
            Some(name),
            None | Some("status" | "ephemeralcontainers" | "resize"),
        ) => {
            // A watch of one object by its path is a list with a field selector.
            if target.watch {
                return watch::answer(&call, r, target).await;
            }
            list::one(&call, r, target, name).await
        }
        (_, Some(name), Some("scale")) if r.scale.is_some() => {
            scale::answer(&call, r, target, name, method, body).await
        }
        (&Method::POST, Some(name), Some("binding")) if r.plural == "pods" => {
            write::bind(&call, r, target, name, body).await
        }
        (&Method::POST, Some(name), Some("token")) if r.plural == "serviceaccounts" => {
            token::answer(&call, r, target, name, body).await
        }
        (&Method::POST, Some(name), Some("eviction")) if r.plural == "pods" => {
            delete::evict(&call, r, target, name, body).await
        }
        (&Method::PUT, Some(name), part) => {
            let part = write::part_of(r, part)?;
            write::replace(&call, r, target, name, part, body).await
        }
        (&Method::PATCH, Some(name), part) => {
            let part = write::part_of(r, part)?;
            write::patch(&call, r, target, name, part, body).await
        }
        (&Method::DELETE, Some(name), None) => delete::one(&call, r, target, name, body).await,
        _ => Err(not_allowed()),
    }
}

/// Reads a request's path and query as the server does before it looks for objects: selectors, pages and
/// versions. The error is the answer to what cannot be read.
pub fn read_request(path: &str, query: &str) -> Result<(), ApiError> {
    path::parse(path)?;
    let query = Query::parse(query)?;
    let text = |name| query.get(name).unwrap_or_default();
    selector::Selector::parse(&crate::kinds::PODS, text("labelSelector"), text("fieldSelector"))?;
    if query.flag("watch") {
        options::Start::parse(&query).map(drop)
    } else {
        ListOptions::parse(&query).map(drop)
    }
}

/// Whether a kind has a subresource.
fn has_part(r: &Resource, part: &str) -> bool {
    match part {
        "status" => r.status,
        "scale" => r.scale.is_some(),
        "binding" | "eviction" | "ephemeralcontainers" | "resize" => r.plural == "pods" && r.group.is_empty(),
        "token" => r.plural == "serviceaccounts" && r.group.is_empty(),
        "finalize" => r.plural == "namespaces" && r.group.is_empty(),
        _ => false,
    }
}

/// The error for a kind that is not served, in a group that may be.
fn unknown(group: &str) -> ApiError {
    let built_in = crate::kinds::BUILT_IN.iter().any(|r| r.group == group);
    if built_in { ApiError::no_such_path() } else { ApiError::no_such_page() }
}

fn not_allowed() -> ApiError {
    ApiError::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}
