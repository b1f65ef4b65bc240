//! In front of the emulator, what AWS does and it does not: a copy takes a while, and says of what it is one
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_RestoreSummary.html>). And what fails.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::told;
use crate::common::cloud::Cloud;

/// In front of a cloud, for as long as the test runs.
pub struct Aws {
    fronted: Arc<Fronted>,
    url: String,
}

struct Fronted {
    endpoint: String,
    client: reqwest::Client,
    /// The operation that fails, from which time on.
    fails: Mutex<Option<(String, u32)>>,
    copies: Mutex<HashMap<String, Making>>,
    waited: AtomicU32,
}

/// A copy, as of when, and how often one looks at it before it is there.
struct Making {
    at: Value,
    looks: u32,
}

/// At first it does not show at all.
const LOOKS: u32 = 3;

impl Aws {
    pub async fn before(cloud: &Cloud) -> Self {
        let fronted = Arc::new(Fronted {
            endpoint: cloud.endpoint.clone(),
            client: reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap(),
            fails: Mutex::default(),
            copies: Mutex::default(),
            waited: AtomicU32::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(fronted.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { fronted, url }
    }

    /// From the nth time on, this operation fails.
    pub fn fails(&self, at: Option<(&str, u32)>) {
        *self.fronted.fails.lock().unwrap() = at.map(|(operation, nth)| (operation.to_owned(), nth));
    }

    /// How often one looked at what was not there yet.
    pub fn waited(&self) -> u32 {
        self.fronted.waited.load(Ordering::SeqCst)
    }

    /// `kassa restore --stage local` through it: exit code, stdout and stderr.
    pub async fn restore(&self, cloud: &Cloud, more: &[&str]) -> (Option<i32>, String, String) {
        let mut command = cloud.command(env!("CARGO_BIN_EXE_kassa").as_ref());
        command.args([&["restore", "--stage", "local"], more].concat());
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_MAX_ATTEMPTS", "1");
        told(&cloud.run(command).await)
    }
}

async fn answer(State(aws): State<Arc<Fronted>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if aws.fail(&operation) {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError");
    }
    let table = asked["TableName"].as_str().unwrap_or_default();
    let looks = if operation == "DescribeTable" { aws.look(table) } else { 0 };
    if looks == LOOKS {
        return refused(StatusCode::BAD_REQUEST, "ResourceNotFoundException");
    }
    let mut forwarded = aws.client.request(parts.method, format!("{}{}", aws.endpoint, parts.uri)).body(body);
    for name in ["authorization", "content-type", "x-amz-date", "x-amz-target"] {
        if let Some(value) = parts.headers.get(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let answer = forwarded.send().await.unwrap();
    let status = answer.status();
    let content = answer.headers().get("content-type").cloned();
    let headers = HeaderMap::from_iter(content.map(|content| (CONTENT_TYPE, content)));
    let mut answer = answer.bytes().await.unwrap();
    if let Ok(told) = serde_json::from_slice::<Value>(&answer)
        && status.is_success()
    {
        answer = aws.says(&operation, &asked, told, looks).to_string().into();
    }
    (status, headers, answer).into_response()
}

fn refused(status: StatusCode, kind: &str) -> Response {
    let told = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": "so there"});
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.0")], told.to_string()).into_response()
}

impl Fronted {
    /// Counts down to the one that fails, which goes on failing.
    fn fail(&self, operation: &str) -> bool {
        match self.fails.lock().unwrap().as_mut() {
            Some((failing, left)) if failing == operation => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            _ => false,
        }
    }

    /// How often one still has to look, with this time.
    fn look(&self, table: &str) -> u32 {
        let mut copies = self.copies.lock().unwrap();
        let Some(making) = copies.get_mut(table).filter(|making| making.looks > 0) else { return 0 };
        self.waited.fetch_add(1, Ordering::SeqCst);
        making.looks -= 1;
        making.looks + 1
    }

    fn says(&self, operation: &str, asked: &Value, mut told: Value, looks: u32) -> Value {
        let mut copies = self.copies.lock().unwrap();
        match operation {
            "RestoreTableToPointInTime" => {
                let making = Making { at: asked["RestoreDateTime"].clone(), looks: LOOKS };
                copies.insert(asked["TargetTableName"].as_str().unwrap().to_owned(), making);
            }
            // The emulator has the present only, AWS more than a month.
            "DescribeContinuousBackups" => {
                let recovery = &mut told["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"];
                let latest = recovery["LatestRestorableDateTime"].as_i64().unwrap();
                recovery["EarliestRestorableDateTime"] = json!(latest - 35 * 24 * 3600);
            }
            "DescribeTable" => {
                let table = &mut told["Table"];
                if let Some(Making { at, .. }) = copies.get(asked["TableName"].as_str().unwrap()) {
                    let of = table["TableArn"].as_str().unwrap().trim_end_matches("-restored").to_owned();
                    let making = looks > 0;
                    table["RestoreSummary"] =
                        json!({"SourceTableArn": of, "RestoreDateTime": at, "RestoreInProgress": making});
                    if making {
                        table["TableStatus"] = json!("CREATING");
                    }
                }
            }
            _ => {}
        }
        told
    }
}
