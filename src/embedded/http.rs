//! The tills' routes over HTTP, and `/health`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, Response, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use kassa_bus::limits::MAX_BATCH_BODY;
use kassa_bus::local::{LocalBus, STACK};
use kassa_bus::trace::{self, Parent};
use kassa_bus::{ClientAddress, Dimension, Metric, Metrics, Tracer};
use kassa_pipeline::accept::{Accept, Post};
use kassa_pipeline::problem::{Answer, Problem};
use kassa_pipeline::request::check_encoding;
use serde_json::{Map, json};

use crate::console::Access;
use crate::listener::{Pace, Places, TookSome, response};

/// A sale that takes longer to accept is answered "try again".
const PATIENCE: Duration = Duration::from_secs(10);

/// What API Gateway and the accept function are on AWS.
pub(super) struct Door {
    pub accept: Accept,
    pub bus: Arc<LocalBus>,
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub places: Arc<Places>,
    /// Who may see more than that the shop is open.
    pub access: Access,
}

impl Door {
    pub(super) fn new(
        accept: Accept,
        (bus, metrics, tracer): (Arc<LocalBus>, Metrics, Tracer),
        places: Arc<Places>,
        access: Access,
    ) -> Self {
        Self { accept, bus, metrics, tracer, places, access }
    }

    /// The tills' routes beside the console's, of which API Gateway has none.
    pub(super) fn router(self, console: Router) -> Router {
        let measured = from_fn_with_state(self.metrics.clone(), measured);
        let health = Router::new().route("/health", get(health)).layer(measured.clone());
        Router::new()
            .route("/shop", post(sale))
            .route("/shop/{shop_id}/key", get(key))
            .route("/shop/{shop_id}/sales/{sale_id}", get(outcome))
            .fallback(|| async { response(Problem::NoSuchPage.answer()) })
            .method_not_allowed_fallback(|| async { response(Problem::NoSuchMethod.answer()) })
            .layer(measured)
            .merge(health)
            .with_state(Arc::new(self))
            .merge(console)
            .layer(from_fn_with_state(Arc::<Pace>::default(), paced))
    }
}

/// Says of requests what API Gateway says of them
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html>).
async fn measured(State(metrics): State<Metrics>, request: Request, next: Next) -> Response<Body> {
    let begun = Instant::now();
    let response = next.run(request).await;
    let api = &[(Dimension::ApiId, STACK)];
    metrics.count_of(Metric::Requests, api, 1);
    metrics.count_of(Metric::ClientErrors, api, u64::from(response.status().is_client_error()));
    metrics.count_of(Metric::ServerErrors, api, u64::from(response.status().is_server_error()));
    metrics.observe(Metric::AnswerLatency, api, begun.elapsed().as_secs_f64() * 1_000.0);
    response
}

/// Whoever brings nothing new waits for the answer, if that is the thousandth. A body that does not say how long it is counts
/// as the longest there may be.
async fn paced(
    State(pace): State<Arc<Pace>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let hint = request.body().size_hint();
    let bytes = hint.upper().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(MAX_BATCH_BODY);
    let response = next.run(request).await;
    if response.extensions().get::<TookSome>().is_none() {
        pace.turn(client, bytes).await;
    }
    response
}

async fn sale(
    State(door): State<Arc<Door>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let request = trace::Request { method: "POST", route: "/shop", path: "/shop", scheme: "http" };
    let span = trace::request(&door.tracer, request, header, None);
    let answered = span.span().within(async {
        let body = door.places.read(client, body, MAX_BATCH_BODY).await?;
        for coding in headers.get_all(CONTENT_ENCODING) {
            check_encoding(coding.to_str().unwrap_or("?"))?;
        }
        // Only now, so that whoever sends slowly keeps nobody out.
        let _in_hand = door.places.enter(client).ok_or(Problem::BUSY)?;
        let trace = Parent::of_headers(header).and_then(|parent| parent.context());
        let accepted = door.accept.sale(Post { body: &body, client, trace });
        tokio::time::timeout(PATIENCE, accepted).await.map_err(|_| Problem::BUSY)
    });
    let answer = answered.await.unwrap_or_else(|problem: Problem| problem.answer());
    span.answered(answer.status);
    response(answer)
}

async fn outcome(
    State(door): State<Arc<Door>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    // What is no UTF-8 is nobody's id, and neither is it as it came.
    let as_it_came = || {
        let mut segments = uri.path().split('/').skip(2).step_by(2).map(str::to_owned);
        (segments.next().unwrap_or_default(), segments.next().unwrap_or_default())
    };
    let (shop_id, sale_id) = path.map_or_else(|_| as_it_came(), |Path(ids)| ids);
    let answer = door.accept.outcome(&shop_id, &sale_id, client);
    looked_up(&door, client, ("/shop/{shop_id}/sales/{sale_id}", uri.path()), &headers, answer).await
}

async fn key(
    State(door): State<Arc<Door>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let shop_id = path.map(|Path(id)| id).unwrap_or_default();
    let answer = door.accept.key(&shop_id);
    looked_up(&door, client, ("/shop/{shop_id}/key", uri.path()), &headers, answer).await
}

/// Answers a `GET` within its span.
async fn looked_up(
    door: &Door,
    client: ClientAddress,
    (route, path): (&'static str, &str),
    headers: &HeaderMap,
    answer: impl Future<Output = Answer>,
) -> Response<Body> {
    let Some(_in_hand) = door.places.enter(client) else {
        return response(Problem::BUSY.answer());
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let request = trace::Request { method: "GET", route, path, scheme: "http" };
    let span = trace::request(&door.tracer, request, header, None);
    let answer = span.span().within(answer).await;
    span.answered(answer.status);
    response(answer)
}

/// That the shop is open; and to whoever may know, what it has counted.
async fn health(State(door): State<Arc<Door>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    if !door.access.admits(&uri, &headers) {
        return response(Answer::json(200, &json!({"status": "ok"})));
    }
    let counts: Map<_, _> =
        Metric::ours().map(|m| (m.name().to_owned(), json!(door.metrics.get(m)))).collect();
    let queued = door.bus.outstanding();
    let health = json!({"status": "ok", "outstanding": queued, "counted": counts});
    response(Answer::json(200, &health))
}
