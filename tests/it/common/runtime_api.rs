//! A stand-in for the Lambda Runtime API, version 2018-06-01:
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. Functions run against it as they would on
//! AWS; who starts them, and how, is the test's affair.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

const FUNCTION: &str = "kassa-test";
const REGION: &str = "eu-west-1";
const TIMEOUT: Duration = Duration::from_secs(30);
/// What a function may answer with, at most.
const RESPONSE: usize = 6 * 1024 * 1024;

/// One function's execution environment. Runs until it is dropped.
pub struct RuntimeApi {
    address: String,
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Invocation>,
    server: JoinHandle<()>,
}

struct Invocation {
    id: String,
    event: Value,
    deadline: SystemTime,
}

type Outcome = Result<Value, Value>;

struct Shared {
    /// Held by one request for the next invocation at a time, as there is one environment.
    queue: tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>,
    running: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    first_next: watch::Sender<Option<Instant>>,
}

impl RuntimeApi {
    pub async fn start() -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue: queued.into(),
            running: Mutex::default(),
            first_next: watch::Sender::default(),
        });
        let app = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(async || accepted()))
            .layer(DefaultBodyLimit::max(RESPONSE))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, queue, server }
    }

    /// The variables Lambda sets for a function of an OS-only runtime:
    /// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>.
    pub fn env(&self, handler: &str) -> Vec<(String, String)> {
        [
            ("AWS_LAMBDA_RUNTIME_API", self.address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/kassa-test"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef"),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_SESSION_TOKEN", "test"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("TZ", ":UTC"),
            ("_HANDLER", handler),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Invokes the function once and waits for its response, or for the error it reports.
    ///
    /// A function that says nothing until its deadline has failed, too, and the error is Lambda's own.
    pub async fn invoke(&self, event: Value) -> Outcome {
        let id = Uuid::now_v7().to_string();
        let (done, outcome) = oneshot::channel();
        self.shared.running.lock().unwrap().insert(id.clone(), done);
        let deadline = SystemTime::now() + TIMEOUT;
        self.queue.send(Invocation { id: id.clone(), event, deadline }).unwrap();
        if let Ok(outcome) = tokio::time::timeout(TIMEOUT, outcome).await {
            return outcome.unwrap();
        }
        self.shared.running.lock().unwrap().remove(&id);
        Err(json!({
            "errorType": "Sandbox.Timedout",
            "errorMessage": format!("RequestId: {id} Error: Task timed out after {:.2} seconds", TIMEOUT.as_secs_f64()),
        }))
    }

    /// When the function first asked for an invocation: its cold start is over.
    #[allow(dead_code, reason = "what benchmarks measure")]
    pub async fn first_next(&self) -> Instant {
        let mut receiver = self.shared.first_next.subscribe();
        let value = tokio::time::timeout(TIMEOUT, receiver.wait_for(Option::is_some)).await;
        value.expect("within the time").expect("a sender").expect("a value")
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    // Before anything else: somebody measures the time until here.
    let now = Instant::now();
    shared.first_next.send_if_modified(|first| first.replace(first.unwrap_or(now)).is_none());
    let Some(Invocation { id, event, deadline }) = shared.queue.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline = deadline.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let root = format!("1-{:08x}-{}", deadline / 1000, &id.replace('-', "")[8..]);
    let headers = [
        ("Lambda-Runtime-Aws-Request-Id", id),
        ("Lambda-Runtime-Deadline-Ms", deadline.to_string()),
        (
            "Lambda-Runtime-Invoked-Function-Arn",
            format!("arn:aws:lambda:{REGION}:000000000000:function:{FUNCTION}"),
        ),
        ("Lambda-Runtime-Trace-Id", format!("Root={root};Parent=53995c3f42cd8ad8;Sampled=1")),
    ];
    (headers, Json(event)).into_response()
}

async fn response(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response {
    shared.ends(&id, Ok(read(&body)))
}

async fn error(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response {
    shared.ends(&id, Err(read(&body)))
}

impl Shared {
    fn ends(&self, id: &str, outcome: Outcome) -> Response {
        match self.running.lock().unwrap().remove(id) {
            Some(done) => {
                let _ = done.send(outcome);
                accepted()
            }
            None => (
                StatusCode::BAD_REQUEST,
                Json(json!({"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"})),
            )
                .into_response(),
        }
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({"status": "OK"}))).into_response()
}

/// A body that is not JSON is handed on as text.
fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}
