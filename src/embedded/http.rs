use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use kassa_bus::limits::MAX_BATCH_BODY;
use kassa_bus::local::{LocalBus, STACK};
use kassa_bus::trace::{self, Parent};
use kassa_bus::{Dimension, Metric, Metrics, Topic, Tracer};
use kassa_pipeline::accept::{Accept, Post};
use kassa_pipeline::problem::{Answer, Problem};
use serde_json::{Map, json};
use tokio::sync::Semaphore;

/// Requests in hand at once; with bodies of at most 512 KiB that bounds memory.
const IN_HAND: usize = 512;

/// A sale that takes longer to accept is answered "try again".
const PATIENCE: Duration = Duration::from_secs(10);

/// What API Gateway and the accept function are on AWS.
pub(super) struct Door {
    pub accept: Accept,
    pub bus: Arc<LocalBus>,
    pub metrics: Metrics,
    pub tracer: Tracer,
    in_hand: Semaphore,
}

impl Door {
    pub(super) fn new(accept: Accept, bus: Arc<LocalBus>, metrics: Metrics, tracer: Tracer) -> Arc<Self> {
        Arc::new(Self { accept, bus, metrics, tracer, in_hand: Semaphore::new(IN_HAND) })
    }

    /// The tills' routes beside the console's, of which API Gateway has none.
    pub(super) fn router(self: Arc<Self>, console: Router) -> Router {
        Router::new()
            .route("/shop", post(sale))
            .route("/shop/{shop_id}/key", get(key))
            .route("/shop/{shop_id}/sales/{sale_id}", get(outcome))
            .route("/health", get(health))
            .fallback(|| async { response(Problem::NoSuchPage.answer()) })
            .method_not_allowed_fallback(|| async { response(Problem::NoSuchMethod.answer()) })
            .layer(from_fn_with_state(self.metrics.clone(), measured))
            .with_state(self)
            .merge(console)
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

async fn sale(
    State(door): State<Arc<Door>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let busy = Problem::Unavailable {
        retry_after: 1,
        detail: "the shop is busy; send the sale again with the same message_id",
    };
    let Ok(_in_hand) = door.in_hand.try_acquire() else { return response(busy.answer()) };
    if !door.bus.has_room(Topic::ToDecrypt) {
        return response(busy.answer());
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let request = trace::Request { method: "POST", route: "/shop", path: "/shop", scheme: "http" };
    let span = trace::request(&door.tracer, request, header, None);
    let answered = tokio::time::timeout(PATIENCE, async {
        // One byte more than allowed is enough to know.
        let Ok(body) = to_bytes(body, MAX_BATCH_BODY).await else {
            return Problem::TooLarge.answer();
        };
        let trace = Parent::of_headers(header).and_then(|parent| parent.context());
        door.accept.sale(Post { body: &body, source: from.ip().to_string(), trace }).await
    });
    let answer = span.span().within(answered).await.unwrap_or_else(|_| busy.answer());
    span.answered(answer.status);
    response(answer)
}

async fn outcome(
    State(door): State<Arc<Door>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    // What is no UTF-8 is nobody's id.
    let (shop_id, sale_id) = path.map(|Path(ids)| ids).unwrap_or_default();
    let source = from.ip().to_string();
    let answer = door.accept.outcome(&shop_id, &sale_id, &source);
    looked_up(&door.tracer, ("/shop/{shop_id}/sales/{sale_id}", uri.path()), &headers, answer).await
}

async fn key(
    State(door): State<Arc<Door>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let shop_id = path.map(|Path(id)| id).unwrap_or_default();
    let answer = door.accept.key(&shop_id);
    looked_up(&door.tracer, ("/shop/{shop_id}/key", uri.path()), &headers, answer).await
}

/// Answers a `GET` within its span.
async fn looked_up(
    tracer: &Tracer,
    (route, path): (&'static str, &str),
    headers: &HeaderMap,
    answer: impl Future<Output = Answer>,
) -> Response<Body> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let request = trace::Request { method: "GET", route, path, scheme: "http" };
    let span = trace::request(tracer, request, header, None);
    let answer = span.span().within(answer).await;
    span.answered(answer.status);
    response(answer)
}

async fn health(State(door): State<Arc<Door>>) -> Response<Body> {
    let counts: Map<_, _> =
        Metric::ours().map(|m| (m.name().to_owned(), json!(door.metrics.get(m)))).collect();
    let queued = door.bus.outstanding();
    let health = json!({"status": "ok", "outstanding": queued, "counted": counts});
    response(Answer::json(200, &health))
}

pub(super) fn response(answer: Answer) -> Response<Body> {
    let headers: Vec<_> = answer.headers().collect();
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
