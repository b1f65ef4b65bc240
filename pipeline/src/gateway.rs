use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kassa_bus::ClientAddress;
use kassa_bus::lambda::{self, Error, Function, Outcome};
use kassa_bus::trace::{self, Call, Parent, Request};
use serde_json::{Map, Value, json};

use crate::accept::{Accept, Post};
use crate::problem::{Answer, Problem};
use crate::request::check_encoding;

const SALE: &str = "POST /shop";
const KEY: &str = "GET /shop/{shop_id}/key";
const OUTCOME: &str = "GET /shop/{shop_id}/sales/{sale_id}";

/// Serves `accept` behind API Gateway: an HTTP API's events (payload format 2.0) in, its answers out
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
///
/// # Errors
/// If Lambda cannot be reached.
pub async fn serve(function: &Function, accept: Accept) -> Result<(), Error> {
    let accept = &accept;
    lambda::serve(function, |event, call| async move {
        let answer = traced(function, &event, &call, Box::pin(route(accept, &event))).await;
        let mut about = Map::new();
        if answer.status >= 400 {
            about.insert("status".to_owned(), answer.status.into());
        }
        Outcome { answer: Ok(to_event(&answer)), about }
    })
    .await
}

/// Answers a request within its span.
async fn traced(
    function: &Function,
    event: &Value,
    call: &Call,
    answer: impl Future<Output = Answer>,
) -> Answer {
    // API Gateway gives headers' names in lower case.
    let header = |name| event["headers"][name].as_str();
    let (method, route) = match event["routeKey"].as_str() {
        Some(SALE) => ("POST", "/shop"),
        Some(KEY) => ("GET", "/shop/{shop_id}/key"),
        Some(OUTCOME) => ("GET", "/shop/{shop_id}/sales/{sale_id}"),
        _ => return answer.await,
    };
    let path = event["rawPath"].as_str().unwrap_or(route);
    let request = Request { method, route, path, scheme: "https" };
    let door = trace::request(&function.tracer, request, header, Some(call));
    let answer = door.span().within(answer).await;
    door.answered(answer.status);
    answer
}

async fn route(accept: &Accept, event: &Value) -> Answer {
    let part = |name| event["pathParameters"][name].as_str().unwrap_or_default();
    match event["routeKey"].as_str() {
        Some(SALE) => sale(accept, event).await,
        Some(KEY) => accept.key(part("shop_id")).await,
        Some(OUTCOME) => accept.outcome(part("shop_id"), part("sale_id"), client(event)).await,
        _ => Problem::NoSuchPage.answer(),
    }
}

async fn sale(accept: &Accept, event: &Value) -> Answer {
    let Some(body) = body(event) else {
        return Problem::malformed("body", "is not the base64 that API Gateway says it is").answer();
    };
    if let Err(problem) = check_encoding(event["headers"]["content-encoding"].as_str().unwrap_or_default()) {
        return problem.answer();
    }
    let trace =
        Parent::of_headers(|name| event["headers"][name].as_str()).and_then(|parent| parent.context());
    accept.sale(Post { body: &body, client: client(event), trace }).await
}

fn client(event: &Value) -> ClientAddress {
    event["requestContext"]["http"]["sourceIp"].as_str().unwrap_or_default().into()
}

/// Bodies without a text content type, which is what plain HTTP clients send, come in base64.
fn body(event: &Value) -> Option<Vec<u8>> {
    let body = event["body"].as_str().unwrap_or_default();
    if event["isBase64Encoded"].as_bool() == Some(true) {
        BASE64_STANDARD.decode(body).ok()
    } else {
        Some(body.as_bytes().to_vec())
    }
}

fn to_event(answer: &Answer) -> Value {
    let headers: Map<_, _> = answer.headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({"statusCode": answer.status, "headers": headers, "body": answer.body, "isBase64Encoded": false})
}
