use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kassa_bus::error::chain;
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};
use super::health::Health;
use crate::monitor::dashboard::BODIES;
use crate::questions::QuestionError;

/// Where in the console a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Overview,
    Sales,
    Stock,
    Incidents,
    Alarms,
    Dashboard(&'a str),
    Nowhere,
}

/// A page, before what is around it.
pub(super) struct Page<'a> {
    pub place: Place<'a>,
    pub title: &'a str,
    pub body: Markup,
    /// How often it may look again when there is something new, in milliseconds.
    pub pace: u32,
}

impl Page<'_> {
    pub(super) fn respond(self, stack: &str, health: &Health) -> Response {
        self.with_status(StatusCode::OK, stack, health)
    }

    pub(super) fn with_status(self, status: StatusCode, stack: &str, health: &Health) -> Response {
        respond(status, &self.whole(stack, health))
    }

    fn whole(self, stack: &str, health: &Health) -> Markup {
        let Self { place, title, body, pace } = self;
        document(
            &format!("{title} · {stack}"),
            &html! {
                header.top {
                    a.brand href="/" { (mark()) "Kassa" span.stack { (stack) } }
                    nav aria-label="Console" { ul { (places(place, health)) } }
                    div.live #live hidden {
                        span #connection .connection { "Live" }
                        button #pause type="button" { "Pause" }
                    }
                }
                main #main tabindex="-1" data-pace=(pace) { (body) }
                p.unseen #news role="status" aria-live="polite" {}
            },
        )
    }
}

/// The sign over the door: a till.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false" {
            path d="M6 3h9v5h3a2 2 0 0 1 2 1.7L21.5 18v3h-19v-3L4 9.7A2 2 0 0 1 6 8h2V6H6zM7 11v2h2v-2zm4 0v2h2v-2zm4 0v2h2v-2zm-8 4v2h2v-2zm4 0v2h2v-2zm4 0v2h2v-2z" {}
        }
    }
}

fn places(here: Place<'_>, health: &Health) -> Markup {
    let alarms = health.firing().count();
    let incidents = health.open().count();
    let place = |place: Place<'_>, address: &str, name: &str, number: usize| {
        html! {
            li { a href=(address) aria-current=[(place == here).then_some("page")] {
                (name)
                @if number > 0 { " " span.badge { (number) } }
            } }
        }
    };
    html! {
        (place(Place::Overview, "/", "Overview", 0))
        (place(Place::Sales, "/sales", "Sales", 0))
        (place(Place::Stock, "/stock", "Stock", 0))
        (place(Place::Incidents, "/incidents", "Incidents", incidents))
        (place(Place::Alarms, "/alarms", "Alarms", alarms))
        li.label { "Dashboards" }
        @for (name, _) in BODIES {
            li { a href={ "/dashboards/" (name) } aria-label={ (capital(name)) " dashboard" }
                aria-current=[(Place::Dashboard(name) == here).then_some("page")] { (capital(name)) } }
        }
    }
}

/// A name with a capital.
pub(super) fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(ICON.path) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.path);
                script src=(SCRIPT.path) defer {}
            }
            body { a.skip href="#main" { "Skip to the content" } (body) }
        }
    }
}

fn respond(status: StatusCode, page: &Markup) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.0.clone()).into_response()
}

/// Why somebody may not look, in a page that shows nothing of the shop.
pub(super) fn refusal(status: StatusCode, why: &str) -> Response {
    let body = html! {
        main #main tabindex="-1" { div.refusal { h1 { (mark()) "Kassa" } p { (why) } } }
    };
    respond(status, &document("Kassa", &body))
}

/// Something that could not be read, in the place where it would stand.
pub(super) fn unavailable(what: &str, why: &str) -> Markup {
    html! { p.unavailable { strong { (what) " cannot be shown now." } " " (super::text::outside(why)) } }
}

/// Rows that cannot be read, and so are left out.
pub(super) fn skipped<'a>(rows: impl Iterator<Item = &'a String>) -> Markup {
    html! { @for row in rows { p.unavailable { strong { "Left out:" } " " (super::text::outside(row)) } } }
}

/// The status of a question that has no answer, and the page's words for it.
pub(super) fn unanswered(error: &QuestionError) -> (StatusCode, Markup) {
    let status = match error {
        QuestionError::Table(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NOT_FOUND,
    };
    (status, html! { p.unavailable { (super::text::outside(&chain(error))) } })
}
