//! The till against a shop that misbehaves: a real HTTP server that answers as the test says.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kassa::till::{Format, Till, TillError};
use kassa_bus::amount::Amount;
use kassa_bus::keys::PublicKey;
use kassa_bus::{Clock, Line};
use serde_json::Value;

/// A status, and perhaps a `Retry-After`.
type Scripted = (u16, Option<&'static str>);

#[derive(Clone)]
struct Shop {
    key: PublicKey,
    answers: Arc<Mutex<Vec<Scripted>>>,
    got: Arc<Mutex<Vec<(Instant, Value)>>>,
    keys_given: Arc<Mutex<u32>>,
}

async fn take(State(shop): State<Shop>, body: String) -> Response {
    shop.got.lock().unwrap().push((Instant::now(), serde_json::from_str(&body).unwrap()));
    let mut answers = shop.answers.lock().unwrap();
    let (status, retry_after) = if answers.is_empty() { (202, None) } else { answers.remove(0) };
    let status = StatusCode::from_u16(status).unwrap();
    match retry_after {
        Some(seconds) => (status, [(header::RETRY_AFTER, seconds)]).into_response(),
        None => (status, r#"{"detail":"because"}"#).into_response(),
    }
}

async fn shop(answers: &[Scripted]) -> (Shop, Till) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let components = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let shop = Shop {
        key: PublicKey::new(&components.n, &components.e).unwrap(),
        answers: Arc::new(Mutex::new(answers.to_vec())),
        got: Arc::default(),
        keys_given: Arc::default(),
    };
    let key = |State(shop): State<Shop>| async move {
        *shop.keys_given.lock().unwrap() += 1;
        axum::Json(shop.key)
    };
    let router =
        Router::new().route("/shop", post(take)).route("/shop/{shop}/key", get(key)).with_state(shop.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let till = Till::new(&url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    (shop, till)
}

fn lines() -> Vec<Line> {
    let line = |n: i64| Line {
        item_no: "98".parse().unwrap(),
        gross_number: Amount::from(n),
        gross_turnover: Amount::from(n),
    };
    (1..=5).map(line).collect()
}

#[tokio::test]
async fn it_tries_again_with_the_same_sale_and_no_sooner_than_it_was_told() {
    let (shop, till) = shop(&[(500, None), (503, Some("1")), (429, None)]).await;
    let sale = till.ring_up(&lines()).await.unwrap();
    assert_eq!(till.post(&sale).await.unwrap().retries, 3);
    let got = shop.got.lock().unwrap();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|(_, body)| *body == got[0].1), "each try is the same request");
    assert_eq!(got[0].1["message_id"], sale.sale_id.to_string());
    assert!(got[2].0 - got[1].0 >= Duration::from_secs(1), "Retry-After is honoured");
}

#[tokio::test]
async fn it_does_not_insist_on_what_is_refused_for_good() {
    let (shop, till) = shop(&[(400, None)]).await;
    let sale = till.ring_up(&lines()).await.unwrap();
    let refused = till.post(&sale).await.unwrap_err();
    assert!(
        matches!(&refused, TillError::Refused { status: 400, detail } if detail == "because"),
        "{refused}"
    );
    assert_eq!(shop.got.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn it_gives_up_when_its_patience_ends() {
    let (_, mut till) = shop(&[(503, None); 100]).await;
    till.patience = Duration::from_millis(300);
    let sale = till.ring_up(&lines()).await.unwrap();
    assert!(matches!(till.post(&sale).await, Err(TillError::GaveUp(_, why)) if why.contains("503")));
}

#[tokio::test]
async fn it_fetches_the_key_once_and_wraps_a_content_key_once_per_thousand_sales() {
    let (shop, till) = shop(&[]).await;
    let mut wrapped = Vec::new();
    for _ in 0..2001 {
        let sale = till.ring_up(&lines()).await.unwrap();
        let body: Value = serde_json::from_str(&sale.body).unwrap();
        wrapped.push(body["sealed"].as_str().unwrap().split('.').nth(1).unwrap().to_owned());
    }
    assert_eq!(*shop.keys_given.lock().unwrap(), 1);
    let runs: Vec<usize> = wrapped.chunk_by(|a, b| a == b).map(<[String]>::len).collect();
    assert_eq!(runs, [1000, 1000, 1]);
}

#[tokio::test]
async fn a_classic_sale_that_is_too_long_is_told_before_it_is_posted() {
    let (shop, mut till) = shop(&[]).await;
    till.format = Format::Classic;
    assert!(matches!(till.ring_up(&lines()).await, Err(TillError::TooLong(bytes)) if bytes > 190));
    assert!(shop.got.lock().unwrap().is_empty());
    let short = till.ring_up(&lines()[..1]).await.unwrap();
    till.post(&short).await.unwrap();
}
