use std::fmt::Write;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;

use crate::monitor::dashboard::COLUMNS;

/// A file that pages name. Its name changes with its content, so that a browser may keep it for ever.
pub(super) struct Asset {
    pub path: String,
    content_type: &'static str,
    content: String,
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_str!("assets/console.css").to_owned() + &grid();
    Asset::new("console", "css", "text/css; charset=utf-8", content)
});

pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("assets/console.js").into())
});

pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg").into()));

/// Rows a dashboard may have.
const ROWS: u32 = 200;

/// Rows a widget may be high.
const HEIGHT: u32 = 40;

/// Where widgets stand. No page may have styles of its own, so each place is a class.
fn grid() -> String {
    let mut rules = String::from("@media (min-width:62rem){");
    for n in 1..=COLUMNS {
        let _ = write!(rules, ".x{}{{grid-column-start:{n}}}.w{n}{{grid-column-end:span {n}}}", n - 1);
    }
    for n in 1..=ROWS {
        let _ = write!(rules, ".y{}{{grid-row-start:{n}}}", n - 1);
    }
    for n in 1..=HEIGHT {
        let _ = write!(rules, ".h{n}{{grid-row-end:span {n}}}");
    }
    rules + "}"
}

impl Asset {
    fn new(name: &str, ending: &str, content_type: &'static str, content: String) -> Self {
        let hash = digest(&SHA256, content.as_bytes());
        let hash = URL64.encode(&hash.as_ref()[..9]);
        Self { path: format!("/assets/{name}-{hash}.{ending}"), content_type, content }
    }
}

pub(super) async fn file(Path(file): Path<String>) -> Response {
    let named = |asset: &&Asset| asset.path.strip_prefix("/assets/") == Some(&file);
    let Some(asset) = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(named) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, asset.content.as_str()).into_response()
}
