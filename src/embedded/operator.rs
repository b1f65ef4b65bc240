use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::Stream;
use kassa_bus::error::chain;
use kassa_bus::tills::EnrolError;
use kassa_bus::{Clock, Publisher};
use kassa_pipeline::problem::Answer;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::http::response;
use super::keys::FileKeys;
use crate::monitor::{DataRequest, Monitor, MonitorError};
use crate::questions::audit::AuditFilter;
use crate::questions::dead_letters::LetterFilter;
use crate::questions::reconcile::ReconcileFilter;
use crate::questions::rejected::RejectedFilter;
use crate::questions::tills::{Enrolment, Revocation};
use crate::questions::{DayFilter, OutboxFilter, QuestionError, Questions, ShopFilter};
use crate::rotation::{Retirement, Rotation};
use crate::status::{View, look};

/// Answers questions on loopback, to whoever has the lock file's token.
pub(super) fn router(
    questions: Arc<Questions>,
    monitor: Arc<dyn Monitor>,
    keys: Arc<FileKeys>,
    publisher: Arc<dyn Publisher>,
    clock: Clock,
    token: &str,
) -> Router {
    let monitored = Router::new()
        .route("/api/monitor/data", post(data))
        .route("/api/monitor/alarms", get(alarms))
        .with_state(monitor.clone());
    let whole = Router::new().route("/api/status", get(status)).with_state((
        questions.clone(),
        monitor,
        clock.clone(),
    ));
    let tilled = Router::new()
        .route("/api/tills", get(tills).post(enrol))
        .route("/api/tills/revoke", post(revoke))
        .with_state((questions.clone(), clock.clone()));
    let again = Router::new()
        .route("/api/rejected", get(rejected))
        .route("/api/retry", get(preview).post(retry))
        .route("/api/reconcile", post(reconcile))
        .route("/api/drop", post(drop_letters))
        .route("/api/give-up", post(give_up))
        .with_state(Again {
            questions: questions.clone(),
            keys: keys.clone(),
            publisher,
            clock: clock.clone(),
        });
    let keyed = Router::new()
        .route("/api/keys", get(shown_keys))
        .route("/api/keys/rotate", post(rotate))
        .route("/api/keys/retire", post(retire))
        .with_state((questions.clone(), keys, clock));
    Router::new()
        .route("/api/sales/{sale_id}", get(sale))
        .route("/api/stock", get(stock))
        .route("/api/events", get(events))
        .route("/api/outbox", get(outbox))
        .route("/api/webhook", get(webhook))
        .route("/api/webhook/resume", post(resume_webhook))
        .route("/api/audit/keys", get(audit_keys))
        .route("/api/dead-letters", get(dead_letters))
        .route("/api/dead-letters/{queue}", get(letters))
        .route("/api/redrive", post(redrive))
        .route("/api/check", get(check))
        .route("/api/rebuild", post(rebuild))
        .with_state(questions)
        .merge(monitored)
        .merge(tilled)
        .merge(keyed)
        .merge(again)
        .merge(whole)
        .layer(from_fn_with_state(Arc::<str>::from(format!("Bearer {token}")), authorize))
}

async fn authorize(State(bearer): State<Arc<str>>, request: Request, next: Next) -> Response<Body> {
    let sent = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    match verify_slices_are_equal(sent, bearer.as_bytes()) {
        Ok(()) => next.run(request).await,
        Err(_) => response(Answer::json(401, &json!({"error": "the token in shop.lock is needed"}))),
    }
}

fn answer<T: Serialize>(result: Result<T, QuestionError>) -> Response<Body> {
    response(match result {
        Ok(value) => Answer::json(200, &json!(value)),
        Err(error) => {
            let status = match &error {
                QuestionError::Table(_) | QuestionError::Tills(EnrolError::Table(_)) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                QuestionError::Tills(_) | QuestionError::Rotation(_) => StatusCode::CONFLICT,
                _ => StatusCode::NOT_FOUND,
            };
            Answer::json(status.as_u16(), &json!({"error": chain(&error)}))
        }
    })
}

async fn sale(
    State(questions): State<Arc<Questions>>,
    Path(sale_id): Path<String>,
    Query(filter): Query<ShopFilter>,
) -> Response<Body> {
    answer(questions.sale(&sale_id, filter.shop.as_deref()).await)
}

async fn stock(State(questions): State<Arc<Questions>>, Query(filter): Query<ShopFilter>) -> Response<Body> {
    answer(questions.stock(filter.shop.as_deref()).await)
}

async fn webhook(State(questions): State<Arc<Questions>>) -> Response<Body> {
    answer(questions.webhook().await)
}

async fn resume_webhook(State(questions): State<Arc<Questions>>) -> Response<Body> {
    answer(questions.resume_webhook().await)
}

async fn outbox(
    State(questions): State<Arc<Questions>>,
    Query(filter): Query<OutboxFilter>,
) -> Response<Body> {
    answer(questions.outbox(&filter).await)
}

async fn audit_keys(
    State(questions): State<Arc<Questions>>,
    Query(filter): Query<AuditFilter>,
) -> Response<Body> {
    answer(questions.audit_keys(&filter).await)
}

/// Questions, and when they are asked.
type Now = (Arc<Questions>, Clock);

async fn tills(State((questions, _)): State<Now>, Query(filter): Query<ShopFilter>) -> Response<Body> {
    answer(questions.tills(filter.shop.as_deref()).await)
}

async fn enrol(State((questions, clock)): State<Now>, Json(enrolment): Json<Enrolment>) -> Response<Body> {
    answer(questions.enrol(&enrolment, clock.now()).await)
}

async fn revoke(State((questions, clock)): State<Now>, Json(revocation): Json<Revocation>) -> Response<Body> {
    answer(questions.revoke(&revocation, clock.now()).await)
}

/// Questions about keys, the keys, and when they are asked.
type Keyed = (Arc<Questions>, Arc<FileKeys>, Clock);

async fn shown_keys(
    State((questions, _, clock)): State<Keyed>,
    Query(filter): Query<ShopFilter>,
) -> Response<Body> {
    answer(questions.keys(filter.shop.as_deref(), clock.now()).await)
}

async fn rotate(
    State((questions, keys, clock)): State<Keyed>,
    Json(rotation): Json<Rotation>,
) -> Response<Body> {
    answer(questions.rotate(&*keys, &rotation, clock.now()).await)
}

async fn retire(
    State((questions, keys, clock)): State<Keyed>,
    Json(retirement): Json<Retirement>,
) -> Response<Body> {
    answer(questions.retire(&*keys, &retirement, clock.now()).await)
}

/// The whole shop.
type Whole = (Arc<Questions>, Arc<dyn Monitor>, Clock);

async fn status(State((questions, monitor, clock)): State<Whole>) -> Response<Body> {
    // Where it is, whoever asks knows.
    let place = String::new();
    let view = View { place, questions: &questions, monitor: Some(&*monitor), deployed: false };
    response(match look(&view, clock.now()).await {
        Ok(status) => Answer::json(200, &json!(status)),
        Err(error) => Answer::json(503, &json!({"error": chain(&error)})),
    })
}

async fn data(State(monitor): State<Arc<dyn Monitor>>, Json(asked): Json<DataRequest>) -> Response<Body> {
    known(monitor.data(&asked.queries, asked.from, asked.to).await)
}

async fn alarms(State(monitor): State<Arc<dyn Monitor>>) -> Response<Body> {
    known(monitor.alarms().await)
}

fn known<T: Serialize>(result: Result<T, MonitorError>) -> Response<Body> {
    response(match result {
        Ok(value) => Answer::json(200, &json!(value)),
        Err(error) => {
            let status = if matches!(error, MonitorError::Query { .. }) { 400 } else { 503 };
            Answer::json(status, &json!({"error": chain(&error)}))
        }
    })
}

async fn events(State(questions): State<Arc<Questions>>, Query(filter): Query<DayFilter>) -> Response<Body> {
    lines(move |line| async move {
        let told = line.clone();
        let each = move |event: Value| {
            let told = told.clone();
            async move { told.send(event).await.is_ok() }
        };
        if let Err(error) = questions.events(&filter, each).await {
            let _ = line.send(json!({"error": chain(&error)})).await;
        }
    })
}

async fn check(State(questions): State<Arc<Questions>>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let end = done(questions.check(&progress).await);
        let _ = line.send(end).await;
    })
}

async fn dead_letters(State(questions): State<Arc<Questions>>) -> Response<Body> {
    answer(questions.dead_letters().await)
}

async fn letters(State(questions): State<Arc<Questions>>, Path(queue): Path<String>) -> Response<Body> {
    answer(questions.letters(&queue).await)
}

async fn redrive(
    State(questions): State<Arc<Questions>>,
    Query(filter): Query<LetterFilter>,
) -> Response<Body> {
    lines(move |line| async move {
        let progress = |letters, of| drop(line.try_send(json!({"events": letters, "of": of})));
        let end = done(questions.redrive(&filter, &progress).await);
        let _ = line.send(end).await;
    })
}

async fn drop_letters(State(again): State<Again>, Query(filter): Query<LetterFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |letters, of| drop(line.try_send(json!({"events": letters, "of": of})));
        let now = again.clock.now();
        let end = done(again.questions.drop_letters(&filter, now, &progress).await);
        let _ = line.send(end).await;
    })
}

/// What it takes to send sales on their way again.
#[derive(Clone)]
struct Again {
    questions: Arc<Questions>,
    keys: Arc<FileKeys>,
    publisher: Arc<dyn Publisher>,
    clock: Clock,
}

async fn rejected(State(again): State<Again>, Query(filter): Query<RejectedFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let end = done(again.questions.rejected(&filter, &progress).await);
        let _ = line.send(end).await;
    })
}

async fn preview(State(again): State<Again>, Query(filter): Query<RejectedFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let opener = again.questions.opener(again.keys);
        let now = again.clock.now();
        let end = done(again.questions.preview(&filter, &opener, &progress, now).await);
        let _ = line.send(end).await;
    })
}

async fn retry(State(again): State<Again>, Query(filter): Query<RejectedFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let end = done(again.questions.retry(&filter, &*again.publisher, &progress).await);
        let _ = line.send(end).await;
    })
}

async fn give_up(State(again): State<Again>, Query(filter): Query<RejectedFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let now = again.clock.now();
        let end = done(again.questions.give_up(&filter, now, &progress).await);
        let _ = line.send(end).await;
    })
}

async fn reconcile(State(again): State<Again>, Query(filter): Query<ReconcileFilter>) -> Response<Body> {
    lines(move |line| async move {
        let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
        let end = done(again.questions.reconcile(&filter, Some(&*again.publisher), &progress).await);
        let _ = line.send(end).await;
    })
}

async fn rebuild(State(questions): State<Arc<Questions>>) -> Response<Body> {
    lines(move |line| async move {
        // Goes on to its end even if whoever asked goes away.
        let work = tokio::spawn(async move {
            let progress = |events, of| drop(line.try_send(json!({"events": events, "of": of})));
            let end = done(questions.rebuild(&progress).await);
            let _ = line.send(end).await;
        });
        let _ = work.await;
    })
}

fn done<T: Serialize>(result: Result<T, QuestionError>) -> Value {
    match result {
        Ok(value) => json!({"done": value}),
        Err(error) => json!({"error": chain(&error)}),
    }
}

/// NDJSON, written as it comes about. Whoever reads slowly slows the writer down, not the memory up.
fn lines<F: Future<Output = ()> + Send + 'static>(
    write: impl FnOnce(mpsc::Sender<Value>) -> F,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(write(sender));
    let mut response = Response::new(Body::from_stream(stream(receiver)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn stream(receiver: mpsc::Receiver<Value>) -> impl Stream<Item = Result<String, std::convert::Infallible>> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok(format!("{line}\n")), receiver))
    })
}
