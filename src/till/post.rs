use std::time::{Duration, Instant};

use kassa_bus::TraceContext;
use kassa_bus::error::chain;
use kassa_bus::trace::{Kind, Span};
use rand::Rng;
use reqwest::{RequestBuilder, header};

use super::answer::{Answered, Away, Heard};
use super::{Prepared, Till, TillError};

/// How a sale was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// From the first try to the yes.
    pub took: Duration,
    pub retries: u32,
}

/// How long one answer is waited for, at least and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// After this long without an answer, that is said.
const SILENCE: Duration = Duration::from_secs(2);

/// The most a till waits between two tries of its own accord.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Till {
    /// Posts a sale once.
    ///
    /// # Errors
    /// [`Away`], after which it may be posted again.
    pub async fn post_once(&self, sale: &Prepared) -> Result<Answered, Away> {
        let (span, trace) = self.span(sale);
        let answered = match self.hear(self.request(&sale.body, trace)).await {
            Ok(heard) => {
                span.number("http.response.status_code", heard.status);
                self.heard_of(heard.key()).await;
                heard.of_one(sale)
            }
            Err(away) => Err(away),
        };
        let accepted = match &answered {
            Ok(Answered::Accepted) => Ok(()),
            Ok(other) => Err(TillError::of(other).to_string()),
            Err(away) => Err(away.to_string()),
        };
        let _ = span.ends("not-accepted", accepted);
        answered
    }

    /// Posts several sealed sales in one request, and gives what is answered to each; nothing, if they are to be posted one by
    /// one.
    ///
    /// # Errors
    /// [`Away`], after which they may be posted again.
    pub(super) async fn post_batch(
        &self,
        body: &str,
        sales: &[Prepared],
    ) -> Result<Option<Vec<Answered>>, Away> {
        let heard = self.hear(self.request(body, None)).await?;
        self.heard_of(heard.key()).await;
        heard.of_each(sales)
    }

    /// Sends a request once.
    pub(super) async fn hear(&self, request: RequestBuilder) -> Result<Heard, Away> {
        let away = |error: reqwest::Error| Away::because(chain(&error));
        let answer = async {
            // Nobody is waited for longer than the till has patience.
            let response = request.timeout(self.patience.clamp(SHORTEST, ANSWER_TIME)).send().await;
            Heard::listen(response.map_err(away)?, self.clock.now()).await.map_err(away)
        };
        let mut answer = std::pin::pin!(answer);
        if let Ok(answered) = tokio::time::timeout(SILENCE, &mut answer).await {
            return answered;
        }
        (self.told)(&Away::because("it does not answer"));
        answer.await
    }

    fn request(&self, body: &str, trace: Option<TraceContext>) -> RequestBuilder {
        let post = self.client.post(self.address()).header(header::CONTENT_TYPE, "application/json");
        let post = trace.iter().fold(post, |post, trace| post.header("traceparent", trace.to_string()));
        post.body(body.to_owned())
    }

    fn address(&self) -> String {
        format!("{}/shop", self.url)
    }

    /// Posts a sale until the shop says yes, a final no, or patience is over.
    ///
    /// # Errors
    /// [`TillError::Refused`] or [`TillError::GaveUp`].
    pub async fn post(&self, sale: &Prepared) -> Result<Posted, TillError> {
        let begun = Instant::now();
        let (span, trace) = self.span(sale);
        let judge = |heard: &Heard| Ok((heard.status, heard.key().cloned(), heard.of_one(sale)?));
        let answered = self.persist(|| self.request(&sale.body, trace), judge, self.patience).await;
        let posted = match answered {
            Ok(((status, key, answered), retries)) => {
                span.number("http.response.status_code", status);
                span.number("http.request.resend_count", retries);
                self.heard_of(key.as_ref()).await;
                match answered {
                    Answered::Accepted => Ok(Posted { took: begun.elapsed(), retries }),
                    other => Err(TillError::of(&other)),
                }
            }
            Err(error) => Err(error),
        };
        span.ends("not-accepted", posted)
    }

    /// The span of a sale, from the first try to the yes, and what its requests say of it.
    fn span(&self, sale: &Prepared) -> (Span, Option<TraceContext>) {
        let address = self.address();
        let span = self.tracer.start(None, Kind::Client, "POST /shop");
        span.attribute("http.request.method", "POST");
        span.text("url.full", &address);
        span.text("server.address", self.url.host());
        span.number("server.port", self.url.port());
        span.text("kassa.shop_id", self.shop.as_str());
        span.text("kassa.sale_id", sale.sale_id.as_str());
        let trace = span.context().or_else(|| self.traceparent.then(TraceContext::random));
        (span, trace)
    }

    /// Sends the same request until it is answered in the shop's own form: exponential backoff with full jitter, never less
    /// than what is asked.
    pub(super) async fn persist<T>(
        &self,
        request: impl Fn() -> RequestBuilder,
        judge: impl Fn(&Heard) -> Result<T, Away>,
        patience: Duration,
    ) -> Result<(T, u32), TillError> {
        let begun = Instant::now();
        let mut backoff = Duration::from_millis(50);
        let mut retries = 0;
        loop {
            let away = match self.hear(request()).await.and_then(|heard| judge(&heard)) {
                Ok(told) => return Ok((told, retries)),
                Err(away) => away,
            };
            (self.told)(&away);
            let wait = away.at_least.max(backoff.mul_f64(rand::rng().random_range(0.0..1.0)));
            if begun.elapsed() + wait > patience {
                let asked = match away.at_least.as_secs() {
                    0 => String::new(),
                    seconds => format!(", which asks to be left alone for {seconds} s"),
                };
                return Err(TillError::GaveUp(patience, away.why + &asked));
            }
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(LONGEST_WAIT);
            retries += 1;
        }
    }
}

impl TillError {
    /// Why a sale that was answered so was not accepted.
    fn of(answered: &Answered) -> Self {
        match answered {
            Answered::Refused(refused) => Self::Refused(refused.clone()),
            Answered::Accepted | Answered::Later => Self::Away(Away::because("the shop takes it later")),
        }
    }
}
