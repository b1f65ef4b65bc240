//! The till against a shop that misbehaves: a real HTTP server that answers as the test says.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kassa::till::{Format, Till, TillError};
use kassa_bus::amount::Amount;
use kassa_bus::keys::PublicKey;
use kassa_bus::{Clock, Line};
use kassa_pipeline::problem::Problem;
use serde_json::{Value, json};

#[derive(Clone)]
struct Shop {
    key: PublicKey,
    problems: Arc<Mutex<Vec<Problem>>>,
    got: Arc<Mutex<Vec<(Instant, Value)>>>,
    keys_given: Arc<Mutex<u32>>,
}

async fn take(State(shop): State<Shop>, body: String) -> Response {
    let posted: Value = serde_json::from_str(&body).unwrap();
    shop.got.lock().unwrap().push((Instant::now(), posted.clone()));
    let mut problems = shop.problems.lock().unwrap();
    if problems.is_empty() {
        let classic = posted.get("content_base64").is_some();
        let sealed = json!({"sale_id": posted["message_id"], "status": "accepted"});
        return if classic {
            axum::Json("OK").into_response()
        } else {
            (StatusCode::ACCEPTED, axum::Json(sealed)).into_response()
        };
    }
    answered(&problems.remove(0))
}

fn answered(problem: &Problem) -> Response {
    let answer = problem.answer();
    let headers: Vec<_> = answer.headers().collect();
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), answer.body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

async fn shop(problems: Vec<Problem>) -> (Shop, Till) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let components = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let shop = Shop {
        key: PublicKey::new(&components.n, &components.e).unwrap(),
        problems: Arc::new(Mutex::new(problems)),
        got: Arc::default(),
        keys_given: Arc::default(),
    };
    let key = |State(shop): State<Shop>| async move {
        *shop.keys_given.lock().unwrap() += 1;
        axum::Json(shop.key)
    };
    let router = Router::new()
        .route("/shop", post(take))
        .route("/shop/{shop}/key", get(key))
        .route("/shop/{shop}/sales/{sale}", get(|| async { answered(&Problem::UnknownSale) }))
        .with_state(shop.clone());
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

fn busy(retry_after: u32) -> Problem {
    Problem::Unavailable { retry_after, detail: "busy" }
}

#[tokio::test]
async fn it_tries_again_with_the_same_sale_and_no_sooner_than_it_was_told() {
    let (shop, till) =
        shop(vec![busy(0), busy(1), Problem::TooMany { retry_after: 0, detail: "fast" }]).await;
    let sale = till.ring_up(lines()).await.unwrap();
    assert_eq!(till.post(&sale).await.unwrap().retries, 3);
    let got = shop.got.lock().unwrap();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|(_, body)| *body == got[0].1), "each try is the same request");
    assert_eq!(got[0].1["message_id"], sale.sale_id.to_string());
    assert!(got[2].0 - got[1].0 >= Duration::from_secs(1), "Retry-After is honoured");
}

#[tokio::test]
async fn it_does_not_insist_on_what_is_refused_for_good() {
    let (shop, till) = shop(vec![Problem::malformed("sealed", "because")]).await;
    let sale = till.ring_up(lines()).await.unwrap();
    let refused = till.post(&sale).await.unwrap_err();
    assert!(
        matches!(&refused, TillError::Refused(no) if no.status == 400 && no.detail == "sealed: because"),
        "{refused}"
    );
    assert_eq!(shop.got.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn it_gives_up_when_its_patience_ends() {
    let (_, mut till) = shop(vec![busy(0); 100]).await;
    till.patience = Duration::from_millis(300);
    let sale = till.ring_up(lines()).await.unwrap();
    assert!(matches!(till.post(&sale).await, Err(TillError::GaveUp(_, why)) if why.contains("503")));
}

#[tokio::test]
async fn it_fetches_the_key_once_and_wraps_a_content_key_once_per_thousand_sales() {
    let (shop, till) = shop(Vec::new()).await;
    let mut wrapped = Vec::new();
    for _ in 0..2001 {
        let sale = till.ring_up(lines()).await.unwrap();
        let body: Value = serde_json::from_str(&sale.body).unwrap();
        wrapped.push(body["sealed"].as_str().unwrap().split('.').nth(1).unwrap().to_owned());
    }
    assert_eq!(*shop.keys_given.lock().unwrap(), 1);
    let runs: Vec<usize> = wrapped.chunk_by(|a, b| a == b).map(<[String]>::len).collect();
    assert_eq!(runs, [1000, 1000, 1]);
}

#[tokio::test]
async fn a_classic_sale_that_is_too_long_is_told_before_it_is_posted() {
    let (shop, mut till) = shop(Vec::new()).await;
    till.format = Format::Classic;
    assert!(matches!(till.ring_up(lines()).await, Err(TillError::TooLong(bytes)) if bytes > 190));
    assert!(shop.got.lock().unwrap().is_empty());
    let short = till.ring_up(&lines()[..1]).await.unwrap();
    till.post(&short).await.unwrap();
}

#[tokio::test]
async fn what_the_shop_would_refuse_for_what_is_in_it_is_not_rung_up() {
    let (_, mut till) = shop(Vec::new()).await;
    // given more lines than a sale may have, none, one that is neither sale nor refund, and a name that no till has
    let many = vec![lines()[0].clone(); kassa_bus::limits::MAX_LINES + 1];
    let mixed = vec![Line { gross_turnover: Amount::from(-1), ..lines()[0].clone() }];
    for wrong in [many, Vec::new(), mixed] {
        let refused = till.ring_up(wrong).await.err().unwrap();
        assert!(matches!(refused, TillError::Invalid(_)), "{refused}");
    }
    till.name = "till\t1".into();
    assert!(till.ring_up(lines()).await.err().unwrap().to_string().contains("till must be"));
}

#[tokio::test]
async fn a_yes_of_which_the_shop_knows_nothing_is_told() {
    let (_, till) = shop(Vec::new()).await;
    let sale = till.ring_up(lines()).await.unwrap();
    till.post(&sale).await.unwrap();
    let told = till.outcomes(&[sale.sale_id]).await.unwrap();
    assert_eq!((told.asked, told.unknown, told.recorded), (1, 1, 0));
}
