//! The console: what the shop is doing, in a browser. It only reads, and asks nothing of any other machine.
//!
//! Pages are whole without JavaScript. With it a page fetches itself again when the feed has something new, and
//! puts what changed in the place of what was there.

/// Who may look.
mod access;
/// Alarms and their states.
mod alarms;
/// Style sheet, script, icon.
mod assets;
/// What needs attention.
mod attention;
/// Values over time, drawn.
mod chart;
/// The files of `dashboards/`, drawn as `CloudWatch` draws them.
mod dashboards;
/// The latest sales and rejections.
pub mod feed;
/// What is asked for by every page.
mod health;
/// Each function's work in the last minutes.
mod hops;
/// Open incidents, and the outbox as its receivers have it.
mod incidents;
/// Telling browsers that there is something new.
mod live;
/// Text with links, lists and tables, of our own files.
mod markdown;
/// Are the shops selling?
mod overview;
/// What is around every page.
mod page;
/// One sale's history.
mod sale;
/// The feed, and looking for a sale.
mod sales;
/// What is left of what, per shop.
mod stock;
/// Text from outside, numbers and times, as people read them.
mod text;

use std::sync::Arc;

pub use access::Access;
use alarms::Titles;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
pub use feed::Feed;
use health::Looks;
use kassa_bus::Clock;
use tokio::sync::Semaphore;

use crate::monitor::Monitor;
use crate::monitor::placeholders::Placeholders;
use crate::questions::Questions;

/// What the console sees.
#[derive(Clone)]
pub struct Sight {
    pub questions: Arc<Questions>,
    pub monitor: Arc<dyn Monitor>,
    pub feed: Arc<Feed>,
    pub access: Access,
    pub clock: Clock,
    /// What commands need to be told to ask the same shop, as ` --stage prod`.
    pub reach: String,
}

/// What a page is made from.
struct Console {
    sight: Sight,
    titles: Titles,
    looks: Looks,
    /// Places for whoever is told at once.
    told: Arc<Semaphore>,
}

/// The console's pages. What else is asked for is up to the caller.
pub fn router(sight: Sight) -> Router {
    let access = sight.access.clone();
    let titles = Titles::read(&Placeholders::of(sight.monitor.stack(), sight.monitor.api()));
    Router::new()
        .route("/", get(overview::show))
        .route("/sales", get(sales::show))
        .route("/sales/{shop}/{sale}", get(sale::show))
        .route("/stock", get(stock::first))
        .route("/stock/{shop}", get(stock::show))
        .route("/incidents", get(incidents::show))
        .route("/alarms", get(alarms::show))
        .route("/dashboards/{name}", get(dashboards::show))
        .route("/live", get(live::stream))
        .with_state(Arc::new(Console {
            sight,
            titles,
            looks: Looks::default(),
            told: Arc::new(Semaphore::new(live::TOLD)),
        }))
        .layer(from_fn_with_state(access, access::guard))
        // They show nothing of the shop, and refusals need them.
        .route("/assets/{file}", get(assets::file))
        .layer(from_fn(with_headers))
}

/// Nothing but our own files, and nobody around us. Neither styles nor scripts may stand in a page.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Sales are nobody's to keep, unless a page says otherwise of itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
