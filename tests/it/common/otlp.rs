//! Whoever collects traces: an OTLP receiver that reads them with the protocol's own types, and a real collector that
//! may stand before it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::task::JoinHandle;

/// A span, as whoever looks at it sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Of what made it.
    pub resource: BTreeMap<String, String>,
    pub name: String,
    pub kind: i32,
    pub trace: String,
    pub id: String,
    /// Empty if it has none.
    pub parent: String,
    pub state: String,
    pub attributes: BTreeMap<String, String>,
    /// Traces and spans that it is linked to.
    pub links: Vec<(String, String)>,
    pub error: Option<String>,
    pub nanoseconds: u64,
    pub sampled: bool,
}

pub const INTERNAL: i32 = 1;
pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;
pub const PRODUCER: i32 = 4;
pub const CONSUMER: i32 = 5;

/// Stopped when it is dropped.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Seen>,
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
    refuse: Option<StatusCode>,
}

impl Receiver {
    pub async fn start() -> Self {
        let received: Arc<Mutex<Received>> = Arc::default();
        let app = Router::new().route("/v1/traces", post(take));
        let app = app.layer(DefaultBodyLimit::max(64 << 20)).with_state(received.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, received, server }
    }

    pub fn spans(&self) -> Vec<Seen> {
        self.received.lock().unwrap().spans.clone()
    }

    /// One trace's spans.
    pub fn trace(&self, id: &str) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.trace == id).collect()
    }

    /// What was sent, as it was sent.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.received.lock().unwrap().bodies.clone()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.received.lock().unwrap().headers.clone()
    }

    /// Answers so from now on, and takes nothing.
    pub fn refuse(&self, status: Option<StatusCode>) {
        self.received.lock().unwrap().refuse = status;
    }

    /// The spans, once they are as wanted.
    pub async fn until(&self, what: &str, right: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let begun = Instant::now();
        loop {
            let spans = self.spans();
            if right(&spans) {
                return spans;
            }
            let told = || spans.iter().map(|s| (&s.trace, &s.name, &s.id)).collect::<Vec<_>>();
            assert!(begun.elapsed() < Duration::from_mins(2), "{what}: {:#?}", told());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut received = received.lock().unwrap();
    let is_zipped = headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    received.bodies.push(body.clone());
    received.headers.push(headers);
    if let Some(status) = received.refuse {
        return status;
    }
    let request =
        ExportTraceServiceRequest::decode(unzipped(is_zipped, body)).expect("an ExportTraceServiceRequest");
    for of_resource in request.resource_spans {
        let resource = texts(of_resource.resource.expect("a resource").attributes);
        let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        received.spans.extend(spans.map(|span| seen(span, &resource)));
    }
    StatusCode::OK
}

/// The collector zips what it hands on.
fn unzipped(is_zipped: bool, body: Bytes) -> Bytes {
    if !is_zipped {
        return body;
    }
    let mut unzipped = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut unzipped).expect("gzip");
    unzipped.into()
}

fn seen(span: Span, resource: &BTreeMap<String, String>) -> Seen {
    let failed = span.status.filter(|status| status.code == 2);
    Seen {
        resource: resource.clone(),
        name: span.name,
        kind: span.kind,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        attributes: texts(span.attributes),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        error: failed.map(|status| status.message),
        nanoseconds: span
            .end_time_unix_nano
            .checked_sub(span.start_time_unix_nano)
            .expect("an end after the start"),
        sampled: span.flags & 1 == 1,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value).expect("a value") {
        Value::StringValue(text) => text,
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let mut texts = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        assert!(texts.insert(key.clone(), text(value)).is_none(), "{key} is there twice");
    }
    texts
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A collector, Rotel, that hands on what it is sent. Stopped when it is dropped.
pub struct Collector {
    pub url: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Collector {
    pub async fn before(receiver: &Receiver) -> Self {
        let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
        let pythons = venv.read_dir().expect("there is no .venv; `make setup` makes it");
        let mut programs =
            pythons.map(|python| python.unwrap().path().join("site-packages/rotel/rotel-agent"));
        let program = programs
            .find(|program| program.exists())
            .expect("there is no collector; `make setup` installs it");
        let folder = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (http, grpc) = (free(), free());
        let process = Command::new(program)
            .arg("start")
            .args(["--otlp-http-endpoint", &http, "--otlp-grpc-endpoint", &grpc])
            .args([
                "--exporter",
                "otlp",
                "--otlp-exporter-protocol",
                "http",
                "--otlp-exporter-compression",
                "none",
            ])
            .args(["--otlp-exporter-endpoint", &receiver.url])
            .arg("--pid-file")
            .arg(folder.path().join("pid"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let collector = Self { url: format!("http://{http}"), process, _folder: folder };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(&http).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the collector does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        collector
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
