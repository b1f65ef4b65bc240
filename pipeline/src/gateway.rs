use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kassa_bus::lambda::{self, Error, Function, Outcome};
use serde_json::{Map, Value, json};

use crate::accept::{Accept, Post};
use crate::problem::{Answer, Problem};

/// Serves `accept` behind API Gateway: an HTTP API's events (payload format 2.0) in, its answers out
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
///
/// # Errors
/// If Lambda cannot be reached.
pub async fn serve(function: &Function, accept: Accept) -> Result<(), Error> {
    let accept = &accept;
    lambda::serve(function, |event| async move {
        let answer = route(accept, &event).await;
        let mut about = Map::new();
        if answer.status >= 400 {
            about.insert("status".to_owned(), answer.status.into());
        }
        Outcome { answer: Ok(to_event(&answer)), about }
    })
    .await
}

async fn route(accept: &Accept, event: &Value) -> Answer {
    match event["routeKey"].as_str() {
        Some("POST /shop") => sale(accept, event).await,
        Some("GET /shop/{shop_id}/key") => {
            accept.key(event["pathParameters"]["shop_id"].as_str().unwrap_or_default()).await
        }
        _ => Problem::NoSuchPage.answer(),
    }
}

async fn sale(accept: &Accept, event: &Value) -> Answer {
    let Some(body) = body(event) else {
        return Problem::malformed("body", "is not the base64 that API Gateway says it is").answer();
    };
    let source = event["requestContext"]["http"]["sourceIp"].as_str().unwrap_or("unknown").to_owned();
    // API Gateway gives headers' names in lower case.
    let trace = event["headers"]["traceparent"].as_str();
    accept.sale(Post { body: &body, source, trace }).await
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
