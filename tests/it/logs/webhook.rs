//! The function `warehouse-webhook` with a queue, a table and a warehouse of its own.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use flate2::read::GzDecoder;
use kassa_bus::webhook::SalesDelivery;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::common::cloud::{Cloud, Proxy};
use crate::common::function::{Function, scheduled_event};

pub struct Webhook<'a> {
    cloud: &'a Cloud,
    /// Between it and AWS.
    pub proxy: Proxy,
    /// What its queue, its dead letters and its table are called.
    name: String,
    secret: String,
    url: String,
    taken: Arc<AtomicUsize>,
    warehouse: JoinHandle<()>,
}

#[derive(Clone)]
struct Warehouse {
    status: StatusCode,
    taken: Arc<AtomicUsize>,
}

/// Answers with this status, and with what it was sent.
async fn echo(State(Warehouse { status, taken }): State<Warehouse>, body: Bytes) -> (StatusCode, String) {
    let mut sales = String::new();
    GzDecoder::new(&*body).read_to_string(&mut sales).unwrap();
    if status.is_success() {
        let delivery: SalesDelivery = serde_json::from_str(&sales).unwrap();
        taken.fetch_add(delivery.data.sales.len(), Ordering::SeqCst);
    }
    (status, sales)
}

/// Makes a table as each subscriber has one.
pub fn create_table(name: &str) -> String {
    format!(
        "keys = ['group', 'name']
aws('dynamodb').create_table(TableName='{name}', BillingMode='PAY_PER_REQUEST',
    AttributeDefinitions=[{{'AttributeName': k, 'AttributeType': 'S'}} for k in keys],
    KeySchema=[{{'AttributeName': k, 'KeyType': t}} for k, t in zip(keys, ['HASH', 'RANGE'])])"
    )
}

impl<'a> Webhook<'a> {
    /// Of a warehouse that always answers with this status.
    pub async fn open(cloud: &'a Cloud, status: u16) -> Self {
        let name = format!("logs-{}", Uuid::now_v7());
        let make = format!(
            "q = aws('sqs')
for name in ['{name}', '{name}-dead-letters']:
    q.create_queue(QueueName=name, Attributes={{'VisibilityTimeout': '60'}})
{}
print(json.dumps(aws('secretsmanager').create_secret(Name='{name}', SecretString='whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')['ARN']))",
            create_table(&name)
        );
        let secret = cloud.boto(&make).await.as_str().unwrap().to_owned();
        let taken = Arc::default();
        let warehouse = Warehouse { status: StatusCode::from_u16(status).unwrap(), taken };
        let taken = warehouse.taken.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/sales", listener.local_addr().unwrap());
        let router = Router::new().fallback(echo).with_state(warehouse);
        let warehouse = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let proxy = Proxy::start(&cloud.endpoint).await;
        Self { cloud, proxy, name, secret, url, taken, warehouse }
    }

    /// Puts messages into its queue.
    pub async fn gets(&self, bodies: &[String]) {
        let entries: Vec<Value> = bodies
            .iter()
            .enumerate()
            .map(|(n, body)| json!({"Id": n.to_string(), "MessageBody": body}))
            .collect();
        let send = format!(
            "q = aws('sqs')
answer = q.send_message_batch(QueueUrl=q.get_queue_url(QueueName='{}')['QueueUrl'], Entries=json.loads({}))
print(json.dumps(len(answer['Successful'])))",
            self.name,
            Value::from(json!(entries).to_string())
        );
        assert_eq!(self.cloud.boto(&send).await, json!(bodies.len()));
    }

    /// Has its minute come, and says what it wrote.
    pub async fn minute(&self, level: &str) -> Vec<String> {
        let queue = |name: &str| format!("{}/000000000000/{name}", self.proxy.url);
        let (own, dead) = (queue(&self.name), queue(&format!("{}-dead-letters", self.name)));
        // What it shares with the alerter.
        let alerter = self.cloud.function_settings("decrypt-error-alerter");
        let settings = [
            ("RUST_LOG", level),
            ("AWS_ENDPOINT_URL", &self.proxy.url),
            ("METRICS_NAMESPACE", &alerter["METRICS_NAMESPACE"]),
            ("ALERTS_TOPIC", &alerter["ALERTS_TOPIC"]),
            ("TABLE", &self.name),
            ("QUEUE_URL", &own),
            ("DEAD_LETTERS_URL", &dead),
            ("WAREHOUSE_URL", &self.url),
            ("WAREHOUSE_SECRET", &self.secret),
            ("WAREHOUSE_ALLOW_HTTP", "true"),
            ("WAREHOUSE_ALLOW_PRIVATE", "true"),
        ];
        let function = Function::start(self.cloud, "warehouse-webhook", &settings).await;
        // Without its queue the minute fails, and says so in its answer.
        let answer = function.api.invoke(scheduled_event()).await;
        let mut said = function.said();
        said.extend(answer.err().map(|error| error.to_string()));
        said
    }

    /// How many sales the warehouse took.
    pub fn took(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        self.warehouse.abort();
    }
}
