use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa::console::{Access, Feed, Sight, router};
use kassa::monitor::{AlarmStatus, Line, Monitor, MonitorError, Query, State};
use kassa::questions::Questions;
use kassa_bus::Clock;

use crate::common::world::{NOON, World};

/// Knows as much as it is told.
#[derive(Clone)]
struct Told {
    /// None, if the alarms cannot be read.
    alarms: Option<Vec<AlarmStatus>>,
    /// What every query comes to, a point a period; none, if the metrics cannot be read.
    values: Option<Vec<f64>>,
}

#[async_trait]
impl Monitor for Told {
    fn stack(&self) -> &'static str {
        "kassa-told"
    }

    fn api(&self) -> &'static str {
        "told"
    }

    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        let Some(values) = &self.values else {
            return Err(MonitorError::Unavailable("the test says so".into()));
        };
        let line = |query: &Query| {
            let period = SignedDuration::from_secs(query.period.into());
            let times = std::iter::successors(Some(from), |at| Some(*at + period)).take_while(|at| *at < to);
            let label = query.label.clone().unwrap_or_else(|| query.id.clone());
            Line { id: query.id.clone(), label, points: times.zip(values.iter().copied()).collect() }
        };
        Ok(queries.iter().filter(|query| query.shown).map(line).collect())
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        self.alarms.clone().ok_or_else(|| MonitorError::Unavailable("the test says so".into()))
    }
}

fn alarm(name: &str, state: State) -> AlarmStatus {
    let noon: Timestamp = NOON.parse().unwrap();
    AlarmStatus {
        name: name.into(),
        state,
        since: noon - SignedDuration::from_mins(7),
        why: "3 of 3 minutes were <bad>".into(),
        description: "What it means.\nRun: kassa status".into(),
    }
}

/// The page at `path` of a console that sees this.
async fn page(told: Told, path: &str) -> (u16, String) {
    let world = World::open().await;
    let sight = Sight {
        questions: Arc::new(Questions::new(world.store.books())),
        monitor: Arc::new(told),
        feed: Arc::new(Feed::default()),
        access: Access::Loopback,
        clock: Clock::from_fn(|| NOON.parse().unwrap()),
        reach: String::new(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router(sight)).await });
    let response = reqwest::get(format!("{url}{path}")).await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    serving.abort();
    (status, body)
}

/// What the page says, without its elements.
fn words(body: &str) -> String {
    let main = body.split("<main").nth(1).unwrap();
    main.split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join(" ")
}

fn calm() -> Told {
    Told { alarms: Some(vec![alarm("dead-letters", State::Ok)]), values: Some(vec![3.0, 4.0, 2.5]) }
}

#[tokio::test]
async fn an_alarm_that_is_on_is_the_first_thing_one_reads() {
    let told = Told {
        alarms: Some(vec![alarm("dead-letters", State::Alarm), alarm("sales-stuck", State::Ok)]),
        ..calm()
    };
    let (_, body) = page(told.clone(), "/").await;
    let says = words(&body);
    let (verdict, alarm) =
        (says.find("1 alarm is on").unwrap(), says.find("Messages have been given up").unwrap());
    assert!(verdict < alarm && alarm < says.find("Recorded").unwrap(), "{says}");
    assert!(says.contains("for 7 min"), "{says}");

    let (_, body) = page(told, "/alarms").await;
    let says = words(&body);
    assert!(says.find("Messages have been given up").unwrap() < says.find("sales-stuck").unwrap(), "{says}");
    assert!(says.contains("Run: kassa status") && says.contains("3 of 3 minutes were &lt;bad&gt;"), "{says}");
}

#[tokio::test]
async fn nothing_wrong_is_told_apart_from_nothing_known() {
    let (_, body) = page(calm(), "/").await;
    assert!(words(&body).contains("No shop sold anything in the last 15 minutes"), "{}", words(&body));
    let (_, body) = page(Told { alarms: None, ..calm() }, "/").await;
    assert!(words(&body).contains("Nothing is known of the alarms"), "{}", words(&body));
    let (_, body) = page(Told { alarms: Some(Vec::new()), ..calm() }, "/").await;
    assert!(words(&body).contains("Nobody watches"), "{}", words(&body));
}

#[tokio::test]
async fn alarms_that_are_not_deployed_are_told() {
    let (_, body) = page(calm(), "/").await;
    assert!(words(&body).contains("alarms are not deployed"), "{}", words(&body));
    let (_, body) = page(calm(), "/alarms").await;
    let missing = words(&body).split_once("Nobody watches for these:").unwrap().1.to_owned();
    assert!(missing.contains("shop-is-down") && !missing.contains("dead-letters"), "{missing}");
}

#[tokio::test]
async fn each_widget_of_each_dashboard_is_drawn() {
    for name in ["sales", "operations", "keys"] {
        let (status, body) = page(calm(), &format!("/dashboards/{name}?span=1h")).await;
        assert_eq!(status, 200);
        let file = std::fs::read_to_string(format!("{}/dashboards/{name}.json", env!("CARGO_MANIFEST_DIR")))
            .unwrap();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap();
        let widgets = file["widgets"].as_array().unwrap();
        assert_eq!(body.matches("class=\"widget ").count(), widgets.len());
        let charts = widgets.iter().filter(|w| w["properties"]["view"] == "timeSeries").count();
        assert!(body.matches("<svg class=\"chart ").count() >= charts && charts > 0, "{name}");
        // Each has its title, its place and what it comes to.
        for widget in widgets.iter().filter(|widget| widget["type"] != "text") {
            let title =
                widget["properties"]["title"].as_str().unwrap().replace('&', "&amp;").replace('"', "&quot;");
            assert!(body.contains(&format!("<bdi>{title}</bdi></h2>")), "{name}: {title}");
            let place =
                format!("x{} y{} w{} h{}", widget["x"], widget["y"], widget["width"], widget["height"]);
            assert!(body.contains(&place), "{name}: {title} stands at {place}");
        }
        assert!(body.contains("2.5 at the end, between 2.5 and 4."), "{name}: charts say what they show");
        assert!(!body.contains("Nothing in this time"), "{name}");
    }
}

#[tokio::test]
async fn metrics_that_cannot_be_read_are_told_in_their_place() {
    let told = Told { values: None, ..calm() };
    let (status, body) = page(told.clone(), "/dashboards/operations").await;
    assert_eq!(status, 200);
    assert!(words(&body).contains("the metrics cannot be read: the test says so"));
    let (status, body) = page(told, "/").await;
    assert_eq!(status, 200, "what the shop itself knows is shown all the same");
    assert!(words(&body).contains("AMIS Nieuwegein") && words(&body).contains("cannot be shown now"));
}
