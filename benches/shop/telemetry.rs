//! A sale's way through decrypt and process in batches of ten, as the shop on one machine takes it, with and without what
//! is said of it: CPU time of this process, in turns, so that the ratio holds on a noisy machine.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use kassa::embedded::Stages;
use kassa_bus::message::{AcceptedSale, Envelope, Origin};
use kassa_bus::subscriber::{dealt_with, isolated, traced};
use kassa_bus::trace::{Parent, TraceContext};
use kassa_bus::{Clock, Message, Metrics, Settings, Subscription, Topic, Tracer, metrics};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Map;

use crate::world::{World, content, sealer};
use crate::{Outcome, figure};

/// Set where this program is to be whoever collects the spans, so that its own time is not counted.
pub const COLLECTOR: &str = "KASSA_BENCH_COLLECTOR";

const BATCH: u32 = 10;
const BATCHES: u32 = 40;
const ROUNDS: usize = 31;
/// For an export, which is never waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said of sales.
#[derive(Clone, Copy, PartialEq)]
enum Said {
    Nothing,
    /// Metrics, and the lines they are written in.
    Counted,
    /// And a share of the traces.
    Traced(&'static str),
}

/// The two functions and what they have.
struct Functions {
    world: World,
    said: Said,
    metrics: Metrics,
    tracer: Tracer,
    decrypt: Subscription,
    process: Subscription,
    /// Sales sold.
    sold: i64,
}

pub async fn figures() -> Outcome<()> {
    let collector = Collector::start()?;
    let modes = [Said::Nothing, Said::Counted, Said::Traced("1"), Said::Traced("0.05"), Said::Traced("0")];
    let mut functions = Vec::new();
    for said in modes {
        functions.push(Functions::open(said, &collector.url).await?);
    }
    let mut times = vec![Vec::new(); modes.len()];
    for round in 0..ROUNDS {
        for at in 0..modes.len() {
            // Nobody always comes first.
            let at = (at + round) % modes.len();
            times[at].push(functions[at].round().await?);
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let bare = medians[0];
    for (mode, took) in modes.iter().zip(&medians).skip(1) {
        let added = (took - bare) / bare * 100.0;
        let what = match mode {
            Said::Traced(share) => format!("metrics, logs and traces of {share} of the sales"),
            _ => "metrics and logs".to_owned(),
        };
        figure(
            &format!("{what} add to a sale in decrypt and process"),
            &format!("{added:.1} %: {:.2} µs", took - bare),
            &format!("{bare:.1} µs of CPU without RSA"),
            "≤ 5 %",
            added <= 5.0,
        );
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Functions {
    async fn open(said: Said, collector: &str) -> Outcome<Self> {
        let world = World::open().await;
        let metrics = if said == Said::Nothing { Metrics::none() } else { Metrics::default() };
        let clock = Clock::system();
        let tracer = match said {
            Said::Traced(share) => {
                let told = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector), ("OTEL_TRACES_SAMPLER_ARG", share)];
                let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
                Tracer::new(&Settings::none().with(told), [], clock.clone(), kassa::otlp::connect)?
            }
            _ => Tracer::default(),
        };
        let stages = Stages {
            store: &world.store,
            keys: world.keys.clone(),
            publisher: world.post.clone(),
            clock: &clock,
            metrics: &metrics,
            settings: &Settings::none(),
        };
        let mut subscriptions = stages.subscriptions().unwrap();
        let mut stage = |topic| {
            let found = subscriptions.iter().position(|s| s.source == kassa_bus::Source::Topic(topic));
            found.map(|at| subscriptions.swap_remove(at)).ok_or("no such stage")
        };
        let (decrypt, process) = (stage(Topic::ToDecrypt)?, stage(Topic::ToProcess)?);
        // As in the shop on one machine: whatever is ended is exported by hundreds.
        tokio::spawn(tracer.clone().run());
        let mut functions = Self { world, said, metrics, tracer, decrypt, process, sold: 0 };
        // The key is unwrapped once, and what is cached is there.
        functions.round().await?;
        Ok(functions)
    }

    /// Microseconds of CPU a sale.
    async fn round(&mut self) -> Outcome<f64> {
        let batches = self.batches().await?;
        self.tracer.invocation_ended(PATIENCE).await;
        let begun = cpu();
        for batch in &batches {
            self.invoke(&self.decrypt, batch).await;
            let published: Vec<Message> = self
                .world
                .post
                .waiting
                .lock()
                .expect("a lock")
                .drain(..)
                .map(|(_, message)| message)
                .collect();
            assert_eq!(published.len(), BATCH as usize);
            self.invoke(&self.process, &published).await;
        }
        self.tracer.invocation_ended(PATIENCE).await;
        let took = cpu().saturating_sub(begun);
        Ok(took.as_secs_f64() * 1e6 / f64::from(BATCH * BATCHES))
    }

    /// As a function is invoked.
    async fn invoke(&self, subscription: &Subscription, batch: &[Message]) {
        let verdicts = match self.said {
            Said::Nothing => isolated(&*subscription.subscriber, batch).await,
            _ => traced(&self.tracer, "aws_sqs", subscription, batch, None).await,
        };
        assert!(verdicts.iter().all(Result::is_ok));
        if self.said == Said::Nothing {
            return;
        }
        dealt_with(&self.metrics, subscription.name, Timestamp::now(), batch, &verdicts);
        let mut about = Map::new();
        about.insert("messages".to_owned(), verdicts.len().into());
        about.insert("took_ms".to_owned(), 7.into());
        for line in metrics::lines("kassa-bench", Timestamp::now(), self.metrics.take(), &about) {
            std::hint::black_box(line);
        }
    }

    /// Accepted sales of three lines in one till's session, in batches.
    async fn batches(&mut self) -> Outcome<Vec<Vec<Message>>> {
        let (kid, key) = self.world.public_key("AMIS1").await;
        let sealer = sealer(&kid, &key);
        let lines = [("98", "1", "7.25"), ("12345", "3", "7.47"), ("90001", "0.5", "3.62")];
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let mut batch = Vec::new();
            for _ in 0..BATCH {
                self.sold += 1;
                let id = crate::world::uuid(self.sold);
                let envelope = sealer.seal(content(&id, crate::world::NOON, &lines).as_bytes())?;
                let sale = AcceptedSale {
                    shop_id: "AMIS1".parse()?,
                    sale_id: id.parse()?,
                    envelope: Envelope::Sealed { sealed: envelope },
                    origin: Origin {
                        source: "192.0.2.7".to_owned(),
                        accepted_at: Timestamp::now(),
                        attempt: 1,
                        opened_with: None,
                        trace: self.accepts(),
                    },
                };
                batch.push(Message {
                    sent: Some(Timestamp::now()),
                    ..kassa_pipeline::claim_check::message(&sale)
                });
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Where accept is in the sale's trace, if sales are traced: by the share that is asked for.
    fn accepts(&self) -> Option<TraceContext> {
        let none: Option<&Parent> = None;
        self.tracer.start(none, kassa_bus::trace::Kind::Producer, "publish to-decrypt").context()
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// This program once more, as whoever collects the spans.
struct Collector {
    url: String,
    process: Child,
}

impl Collector {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(COLLECTOR, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or("no stdout")?).read_line(&mut url)?;
        Ok(Self { url: url.trim().to_owned(), process })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes whatever is posted, until it is killed.
pub fn collect() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app =
            axum::Router::new().route("/v1/traces", axum::routing::post(async |_: axum::body::Bytes| ()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        Ok(axum::serve(listener, app).await?)
    })
}
