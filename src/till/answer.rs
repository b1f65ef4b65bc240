//! What an answer says of a sale. A till believes its shop and nobody else: what does not say in the shop's own form that the
//! sale was accepted or refused came from something that stands in its place, and the sale waits.

use std::time::Duration;

use jiff::Timestamp;
use kassa_bus::SaleId;
use kassa_bus::retry_after::retry_after;
use kassa_pipeline::problem_type::ProblemType;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::{Format, Prepared};

/// No answer of the shop is longer.
const LONGEST: usize = 64 * 1024;

/// The longest that whatever answers is left alone because it asks for that.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// The header by which the shop names the key it wants sales sealed with.
const KASSA_KEY: &str = "kassa-key";

/// The most of a refusal's words that is kept.
const DETAIL: usize = 500;

/// What became of a sale, as far as the shop said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    Accepted,
    Refused(Refused),
    /// It may be taken later.
    Later,
}

/// The shop's final no, which the same sale would get again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub detail: String,
}

/// The shop cannot be reached, or wants to be asked later, or something else answers in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Away {
    pub why: String,
    /// What is asked to be waited.
    pub at_least: Duration,
}

impl Away {
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), at_least: Duration::ZERO }
    }
}

/// An answer, as far as it is heard.
pub struct Heard {
    pub status: u16,
    headers: HeaderMap,
    /// Cut off where no answer of the shop goes on.
    body: Vec<u8>,
    /// What it asks to be waited.
    at_least: Duration,
}

/// A problem of ours (RFC 9457).
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    status: u16,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
struct Told {
    sale_id: Option<SaleId>,
    status: String,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct ToldEach {
    sales: Vec<Told>,
}

impl Heard {
    /// Listens to an answer to its end, or up to where none of the shop's goes on.
    ///
    /// # Errors
    /// If it is cut off.
    pub async fn listen(mut response: Response, now: Timestamp) -> Result<Self, reqwest::Error> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk[..chunk.len().min(LONGEST + 1 - body.len())]);
            if body.len() > LONGEST {
                break;
            }
        }
        let at_least = headers.get(RETRY_AFTER).map_or(Duration::ZERO, |after| asked(after, now));
        Ok(Self { status, headers, body, at_least })
    }

    /// The key the shop wants sales sealed with.
    #[must_use]
    pub fn key(&self) -> Option<&HeaderValue> {
        self.headers.get(KASSA_KEY)
    }

    /// The body, if it is JSON of this form and says so.
    #[must_use]
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        self.of_type("application/json")
    }

    fn of_type<'a, T: Deserialize<'a>>(&'a self, media_type: &str) -> Option<T> {
        let is = self.media_type().eq_ignore_ascii_case(media_type) && self.body.len() <= LONGEST;
        is.then(|| serde_json::from_slice(&self.body).ok())?
    }

    /// What this says of one sale: accepted is a 202 that names it, or 200 `"OK"` for a classic one.
    ///
    /// # Errors
    /// [`Away`].
    pub fn of_one(&self, sale: &Prepared) -> Result<Answered, Away> {
        let accepted = match sale.format() {
            Format::Sealed => {
                self.status == 202 && self.json::<Told>().is_some_and(|told| told.accepts(sale))
            }
            Format::Classic => self.status == 200 && self.json::<&str>() == Some("OK"),
        };
        if accepted {
            return Ok(Answered::Accepted);
        }
        self.refusal().map(Answered::Refused)
    }

    /// What this says of each sale of a batch; nothing, if the shop refused them as a batch.
    ///
    /// # Errors
    /// [`Away`].
    pub fn of_each(&self, sales: &[Prepared]) -> Result<Option<Vec<Answered>>, Away> {
        let told = self.json::<ToldEach>().filter(|told| {
            let each = || told.sales.iter().zip(sales);
            matches!(self.status, 202 | 207)
                && told.sales.len() == sales.len()
                && each().all(|(told, sale)| told.sale_id.as_ref() == Some(&sale.sale_id))
        });
        match told {
            Some(told) => Ok(Some(told.sales.iter().zip(sales).map(|(told, sale)| told.of(sale)).collect())),
            None => self.refusal().map(|_| None),
        }
    }

    /// The shop's final no.
    ///
    /// # Errors
    /// [`Away`], if this is none.
    pub fn refusal(&self) -> Result<Refused, Away> {
        match self.ours() {
            Some((kind, problem)) if kind.is_final() => Ok(problem.refused()),
            Some((kind, problem)) => {
                let why = format!("{} {}: {}", self.status, kind.title(), plain(&problem.detail));
                Err(Away { why, at_least: self.at_least })
            }
            None => Err(Away { why: self.not_the_shop(), at_least: self.at_least }),
        }
    }

    /// Which problem of ours this is, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<ProblemType> {
        self.ours().map(|(kind, _)| kind)
    }

    fn ours(&self) -> Option<(ProblemType, Problem)> {
        let problem: Problem = self.of_type("application/problem+json")?;
        Some((problem.kind().filter(|_| problem.status == self.status)?, problem))
    }

    fn media_type(&self) -> &str {
        let media_type =
            self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        media_type.split(';').next().unwrap_or_default().trim()
    }

    fn not_the_shop(&self) -> String {
        let status = StatusCode::from_u16(self.status)
            .map_or_else(|_| self.status.to_string(), |status| status.to_string());
        // An API's own words of being away: those are the shop's as well as anybody's.
        if self.status >= 500 || self.status == 429 {
            return status;
        }
        let with = match self.media_type() {
            "" => String::new(),
            media_type => format!(", {}", plain(media_type)),
        };
        let to = self
            .headers
            .get(LOCATION)
            .and_then(|to| to.to_str().ok())
            .map_or_else(String::new, |to| format!(", on to {}", plain(to)));
        format!(
            "what answers is not the shop ({status}{with}{to}); a proxy or a network's log-in page may stand between"
        )
    }
}

impl Problem {
    fn kind(&self) -> Option<ProblemType> {
        self.kind.parse().ok().filter(|kind: &ProblemType| kind.status() == self.status)
    }

    fn refused(&self) -> Refused {
        Refused { status: self.status, detail: plain(&self.detail) }
    }
}

impl Told {
    fn accepts(&self, sale: &Prepared) -> bool {
        self.status == "accepted" && self.sale_id.as_ref() == Some(&sale.sale_id)
    }

    fn of(&self, sale: &Prepared) -> Answered {
        let is_final = |problem: &&Problem| problem.kind().is_some_and(ProblemType::is_final);
        match (self.status.as_str(), self.problem.as_ref().filter(is_final)) {
            _ if self.accepts(sale) => Answered::Accepted,
            ("refused", Some(problem)) => Answered::Refused(problem.refused()),
            // Whatever is not said is asked again.
            _ => Answered::Later,
        }
    }
}

/// Words from outside, fit to be shown and kept.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(DETAIL).collect()
}

/// How long a till is asked to wait, and does.
fn asked(value: &HeaderValue, now: Timestamp) -> Duration {
    let asked = value.to_str().ok().and_then(|text| retry_after(text, now));
    asked.unwrap_or_default().min(LONGEST_ASKED)
}

#[cfg(test)]
mod tests {
    use kassa_pipeline::problem::Problem as Ours;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "019394e8-6c00-7000-8000-000000000001";
    const OTHER: &str = "019394e8-6c00-7000-8000-000000000002";

    fn sale(id: &str) -> Prepared {
        let field = if id == ID || id == OTHER { "sealed" } else { "content_base64" };
        let body = json!({"shop_id": "A", "message_id": id, field: "x"}).to_string();
        Prepared { seq: 1, sale_id: id.parse().unwrap(), body }
    }

    fn heard(status: u16, media_type: &'static str, body: &str) -> Heard {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        Heard { status, headers, body: body.into(), at_least: Duration::ZERO }
    }

    fn said(problem: &Ours) -> Heard {
        let answer = problem.answer();
        heard(answer.status, answer.content_type, &answer.body)
    }

    const JSON: &str = "application/json";
    const PROBLEM: &str = "application/problem+json";

    #[test]
    fn a_yes_names_the_sale() {
        let yes = json!({"sale_id": ID, "status": "accepted"}).to_string();
        assert_eq!(heard(202, JSON, &yes).of_one(&sale(ID)), Ok(Answered::Accepted));
        let classic = sale("7-20261122");
        assert_eq!(heard(200, JSON, "\"OK\"").of_one(&classic), Ok(Answered::Accepted));
        let other = json!({"sale_id": OTHER, "status": "accepted"}).to_string();
        let pending = json!({"sale_id": ID, "status": "pending"}).to_string();
        for (status, body) in [
            (200, &*yes),
            (201, &yes),
            (204, ""),
            (202, &other),
            (202, &pending),
            (202, "null"),
            (202, "\"OK\""),
            (200, "\"OK\""),
            (202, "<html>"),
        ] {
            assert!(heard(status, JSON, body).of_one(&sale(ID)).is_err(), "{status} {body}");
        }
        assert!(heard(200, "text/html", "\"OK\"").of_one(&classic).is_err());
        for (status, body) in [(202, "\"OK\""), (200, "OK"), (200, "null"), (200, "{}"), (202, &yes)] {
            assert!(heard(status, JSON, body).of_one(&classic).is_err(), "{status} {body}");
        }
        let long = format!("{}{yes}", " ".repeat(LONGEST));
        assert!(heard(202, JSON, &long[..=LONGEST]).of_one(&sale(ID)).is_err());
    }

    #[test]
    fn a_final_no_is_a_problem_of_ours_that_says_so() {
        for (problem, is_final) in [
            (Ours::malformed("sealed", "is wrong"), true),
            (Ours::UnknownShop, true),
            (Ours::TooLarge, true),
            (Ours::UnknownSale, false),
            (Ours::NoSuchPage, false),
            (Ours::NoSuchMethod, false),
            (Ours::TooMany { retry_after: 1, detail: "" }, false),
            (Ours::Unavailable { retry_after: 1, detail: "" }, false),
        ] {
            assert_eq!(said(&problem).of_one(&sale(ID)).is_ok(), is_final, "{problem:?}");
            assert_eq!(said(&problem).of_each(&[sale(ID), sale(OTHER)]).is_ok(), is_final, "{problem:?}");
        }
    }

    #[test]
    fn what_looks_like_a_no_and_is_none_of_ours_is_not_believed() {
        let (_, ours) = Ours::malformed("sealed", "is wrong").document();
        let with = |field: &str, value: Value| {
            let mut document = ours.clone();
            document[field] = value;
            document.to_string()
        };
        for (status, media_type, body) in [
            (400, JSON, ours.to_string()),
            (403, PROBLEM, ours.to_string()),
            (400, PROBLEM, with("type", json!("about:blank"))),
            (400, PROBLEM, with("type", json!("urn:kassa:problem:gone"))),
            (400, PROBLEM, with("type", json!("urn:kassa:problem:too-large"))),
            (400, PROBLEM, with("status", json!(404))),
            (400, PROBLEM, "{}".into()),
            (400, PROBLEM, String::new()),
        ] {
            let away = heard(status, media_type, &body).of_one(&sale(ID)).unwrap_err();
            assert!(away.why.contains("is not the shop"), "{status} {media_type} {body}: {away}");
        }
        let refused =
            heard(400, "Application/Problem+JSON; charset=utf-8", &ours.to_string()).of_one(&sale(ID));
        assert!(matches!(refused, Ok(Answered::Refused(_))));
    }

    #[test]
    fn a_batch_is_answered_sale_by_sale_in_their_order() {
        let sales = [sale(ID), sale(OTHER)];
        let yes = |id: &str| json!({"sale_id": id, "status": "accepted"});
        let (_, problem) = Ours::malformed("sealed", "is wrong").document();
        let no = json!({"sale_id": OTHER, "status": "refused", "problem": problem});
        let told = |status, told: &[&Value]| {
            heard(status, JSON, &json!({"sales": told}).to_string()).of_each(&sales)
        };
        assert_eq!(
            told(202, &[&yes(ID), &yes(OTHER)]),
            Ok(Some(vec![Answered::Accepted, Answered::Accepted]))
        );
        let refused = Refused { status: 400, detail: "sealed: is wrong".into() };
        assert_eq!(
            told(207, &[&yes(ID), &no]),
            Ok(Some(vec![Answered::Accepted, Answered::Refused(refused)]))
        );
        // what only says no, or is put off, is asked again
        for later in [
            json!({"sale_id": OTHER, "status": "refused"}),
            json!({"sale_id": OTHER, "status": "unavailable"}),
        ] {
            assert_eq!(told(207, &[&yes(ID), &later]), Ok(Some(vec![Answered::Accepted, Answered::Later])));
        }
        // and what is said of other sales is no answer
        for wrong in [&[][..], &[&yes(ID)], &[&yes(OTHER), &yes(ID)], &[&yes(ID), &yes(OTHER), &yes(ID)]] {
            assert!(told(202, wrong).is_err());
        }
        assert!(told(200, &[&yes(ID), &yes(OTHER)]).is_err());
    }

    #[test]
    fn nobody_is_left_alone_for_more_than_five_minutes() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, wait) in [
            ("7", 7),
            ("0", 0),
            ("86400", 300),
            ("Sun, 22 Nov 2026 12:01:00 GMT", 60),
            ("Sunday, 22-Nov-26 12:01:00 GMT", 60),
            ("Sun Nov 22 12:01:00 2026", 60),
            ("Sun, 22 Nov 2020 12:01:00 GMT", 0),
            ("Sun, 22 Nov 2099 12:01:00 GMT", 300),
            ("soon", 0),
        ] {
            let wait = Duration::from_secs(wait);
            assert_eq!(asked(&HeaderValue::from_static(text), now), wait, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_answered_loses_no_sale(status in 100u16..1000, problem in any::<bool>(), body in "\\PC{0,80}|\"OK\"|[\\[{]\"(sale_id|status|type)\":.{0,40}") {
            let answer = heard(status, if problem { PROBLEM } else { JSON }, &body).of_one(&sale(ID));
            prop_assert!(answer.is_err(), "{answer:?}");
        }
    }
}
