use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kassa_bus::keys::ShopKeys;
use kassa_bus::local::{LocalBus, Redelivery, STACK, invoked};
use kassa_bus::table::TableError;
use kassa_bus::{
    Clock, Host, Metrics, Publisher, SettingError, Settings, Source, Subscription, Tracer, trace,
};
use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::first_use::FirstUse;
use kassa_pipeline::opener::Opener;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use kassa_pipeline::rates::Rates;
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::reject::Reject;
use kassa_pipeline::unsettled::Finder;
use kassa_pipeline::watch::Watch;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use super::data::{DataFolder, Occupant, OpenError};
use super::dynamodb::Sync;
use super::host::LocalHost;
use super::http::Door;
use super::keys::FileKeys;
use super::shown::Shown;
use super::store::{MONITOR, Store, StoreError};
use super::stream::Reporter;
use super::{operator, recover};
use crate::console::{self, Access, Feed, Sight};
use crate::listener;
use crate::monitor::alarms::Alarms;
use crate::monitor::collect::{Collector, Parts};
use crate::monitor::placeholders::Placeholders;
use crate::otlp;
use crate::plan::{ApplyError, Plan};
use crate::questions::{Books, Questions};
use crate::shops::Shops;
use crate::tls::{TlsError, TlsFiles};

/// What `kassa up` is told.
pub struct Up {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub shops: Shops,
    pub sync: Sync,
    pub clock: Clock,
    /// What subscribers are told.
    pub settings: Settings,
    /// What tills are shown that it is this shop, if they are to be.
    pub tls: Option<TlsFiles>,
}

/// Why a shop does not open.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Data(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("{name} does not start")]
    Subscriber { name: &'static str, source: SettingError },
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A file that is compiled in, and tested to be right.
    #[error("{0}")]
    Alarms(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Monitor(#[from] TableError),
    #[error("cannot make the keys in {}: {why}", folder.display())]
    Keys { folder: PathBuf, why: std::io::Error },
    #[error("cannot listen on {address}: {why}; choose another with --listen")]
    Listen { address: SocketAddr, why: std::io::Error },
}

/// A shop that takes sales and answers questions, until it is closed.
pub struct OpenShop {
    pub occupant: Occupant,
    /// What was changed to make the shop what `shops.toml` declares.
    pub applied: Plan,
    pub store: Store,
    pub metrics: Metrics,
    tracer: Tracer,
    /// What is known of its health.
    pub monitor: Arc<Collector>,
    /// Where the console is, for whoever may look.
    pub console: String,
    feed: Arc<Feed>,
    bus: Arc<LocalBus>,
    /// Those who work at the queues, and those who do something every minute.
    working: [JoinSet<()>; 2],
    /// Tells the listeners to take no more.
    closing: watch::Sender<bool>,
    tills: JoinHandle<()>,
    /// Exports spans.
    exporting: JoinHandle<()>,
    /// Tells the projection that nothing more will come.
    ending: watch::Sender<bool>,
    /// Finishes what an earlier process left.
    resuming: JoinHandle<()>,
    projections: Vec<JoinHandle<()>>,
    // Held, and with it the lock, until the shop is closed.
    _folder: DataFolder,
}

/// How long closing waits for what is still on its way. What is left is published again at the next
/// start.
const DRAIN: Duration = Duration::from_secs(30);

/// How long closing waits for whoever collects traces.
const LAST_EXPORT: Duration = Duration::from_secs(5);

impl OpenShop {
    /// Opens the shop: database, keys, registry, stages, listeners.
    ///
    /// # Errors
    /// [`UpError`].
    pub async fn open(up: Up) -> Result<Self, UpError> {
        let mut folder = DataFolder::create(&up.data).await?;
        let store = Store::open(Some(&folder.database()), up.sync).await?;
        let failed = |why| UpError::Keys { folder: folder.keys(), why };
        let keys = Arc::new(FileKeys::open(&folder.keys()).map_err(failed)?);
        let plan = apply(&up, &keys, &store).await?;

        let metrics = Metrics::default();
        let resource = [("service.name", "kassa".to_owned()), ("service.namespace", STACK.to_owned())];
        let tracer = Tracer::new(&up.settings, resource, up.clock.clone(), otlp::connect)?;
        let minute = up.settings.duration("MINUTE", Duration::from_mins(1))?;
        let bus =
            LocalBus::new(Redelivery { minute, ..Redelivery::default() }, metrics.clone(), tracer.clone());
        let feed = Arc::<Feed>::default();
        let stages = Stages {
            store: &store,
            keys: keys.clone(),
            publisher: Arc::new(Shown { inner: bus.clone(), feed: feed.clone() }),
            clock: &up.clock,
            metrics: &metrics,
            settings: &up.settings,
        };
        let accept = stages.accept()?;
        let (on_stream, others): (Vec<_>, Vec<_>) =
            stages.subscriptions()?.into_iter().partition(|s| s.source == Source::EventStream);
        let (closing, closed) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let reporter = Reporter {
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            clock: up.clock.clone(),
            feed: feed.clone(),
        };
        let projections = project(on_stream, &store, &reporter, &ended);
        let host = LocalHost {
            store: store.clone(),
            keys: keys.clone(),
            settings: up.settings,
            clock: up.clock.clone(),
            metrics: metrics.clone(),
            feed: feed.clone(),
        };
        let plugged = plugged(&host)?;
        let ticking = others.iter().chain(&plugged).filter(|s| s.every_minute);
        let ticking = tick_every(minute, ticking, &metrics, &tracer);
        let working = bus.start(others, plugged, &store.kept(&up.clock));
        let monitor = Collector::open(watching(&host, &bus)?).await?;
        tokio::spawn(Arc::clone(&monitor).run(minute, closed.clone()));

        let questions = Arc::new(questions(&store, &bus));
        let (tills, address) = listen(up.listen).await?;
        let tls = up.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let (operators, operator) = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let operator_url = format!("http://{operator}");
        let token = uuid::Uuid::new_v4().simple().to_string();
        let occupant = Occupant { pid: std::process::id(), url, operator_url, token };
        let sight = Sight {
            questions: questions.clone(),
            monitor: monitor.clone(),
            feed: feed.clone(),
            access: Access::on(address),
            clock: up.clock.clone(),
        };
        let console = sight.access.address(&occupant.url);
        tokio::spawn(seed(feed.clone(), questions.clone(), up.clock.clone()));
        let door =
            Door::new(accept, bus.clone(), metrics.clone(), tracer.clone()).router(console::router(sight));
        let tills = serve(tills, tls, door, closed.clone());
        let answers = operator::router(
            questions.clone(),
            monitor.clone(),
            keys,
            bus.clone(),
            up.clock.clone(),
            &occupant.token,
        );
        // Questions may stream for minutes, so these are cut off at the end.
        tokio::spawn(serve(operators, None, answers, closed));
        folder.announce(&occupant)?;

        let exporting = tokio::spawn(tracer.clone().run());
        let resuming = tokio::spawn(resume(questions, store.clone(), bus.clone(), metrics.clone()));
        Ok(Self {
            occupant,
            applied: plan,
            store,
            metrics,
            tracer,
            monitor,
            console,
            feed,
            bus,
            working: [working, ticking],
            closing,
            tills,
            exporting,
            ending,
            resuming,
            projections,
            _folder: folder,
        })
    }

    /// Takes no more sales, and ends what was begun. Says how many messages were left.
    pub async fn close(mut self) -> usize {
        self.closing.send_replace(true);
        // Whoever looks would be waited for.
        self.feed.close();
        // The next start looks again for what is not settled.
        self.resuming.abort();
        // In the order a sale takes: what was let in, what is on its way, what is recorded.
        let ended = async {
            let _ = self.tills.await;
            self.bus.drained().await;
            self.ending.send_replace(true);
            for projection in self.projections {
                let _ = projection.await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, ended).await;
        // The data folder may be another's soon.
        for tasks in &mut self.working {
            tasks.shutdown().await;
        }
        if let Err(why) = self.monitor.close().await {
            tracing::error!(%why, "cannot keep the last minute's metrics");
        }
        self.tracer.close(LAST_EXPORT).await;
        self.exporting.abort();
        self.bus.outstanding()
    }
}

/// Makes the shop what is declared, but for rows that cannot be read, or cannot take it.
async fn apply(up: &Up, keys: &FileKeys, store: &Store) -> Result<Plan, ApplyError> {
    let plan = Plan::make(&up.shops, keys, &store.registry, &store.read_model).await?;
    let refused = plan.carry_out(keys, &store.registry, &store.read_model, up.clock.now()).await?;
    for row in plan.unreadable.iter().chain(&refused) {
        tracing::error!(row, "left as it is; see kassa check");
    }
    Ok(plan)
}

/// Asked of a shop that is open, whose bus takes back what its queues gave up.
fn questions(store: &Store, bus: &Arc<LocalBus>) -> Questions {
    let dead_letters = Arc::new(store.dead_letters(Some(bus.clone())));
    Questions::new(Books { dead_letters, ..store.books() })
}

/// Starts those that live on the event store's stream.
fn project(
    on_stream: Vec<Subscription>,
    store: &Store,
    reporter: &Reporter,
    ended: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let run = |subscription| {
        let (events, read_model) = (store.events.clone(), store.read_model.clone());
        let stream = store.stream.clone();
        tokio::spawn(stream.run(subscription, events, read_model, reporter.clone(), ended.clone()))
    };
    on_stream.into_iter().map(run).collect()
}

/// What was sold before the shop was opened.
async fn seed(feed: Arc<Feed>, questions: Arc<Questions>, clock: Clock) {
    if let Err(error) = feed.ask(&questions, clock.now()).await {
        tracing::warn!(%error, "the console begins without the latest sales");
    }
}

/// What an earlier process did not finish.
async fn resume(questions: Arc<Questions>, store: Store, bus: Arc<LocalBus>, metrics: Metrics) {
    match store.read_model.needs_rebuild().await {
        Ok(false) => {}
        Ok(true) => match questions.rebuild(&|_, _| {}).await {
            Ok(rebuilt) => tracing::info!(sales = rebuilt.sales, "rebuilt stock and turnover, as was due"),
            Err(error) => tracing::error!(%error, "cannot rebuild stock and turnover; run kassa rebuild"),
        },
        Err(error) => tracing::error!(%error, "cannot see whether a rebuild is due"),
    }
    match recover::recover(&store.events, &*bus, &metrics).await {
        Ok(0) => {}
        Ok(republished) => tracing::info!(republished, "left by an earlier process, published again"),
        Err(error) => {
            tracing::error!(%error, "cannot look for accepted sales that are not settled; restart to try again");
        }
    }
}

/// What stages are made of.
pub struct Stages<'a> {
    pub store: &'a Store,
    pub keys: Arc<dyn ShopKeys>,
    pub publisher: Arc<dyn Publisher>,
    pub clock: &'a Clock,
    pub metrics: &'a Metrics,
    pub settings: &'a Settings,
}

impl Stages<'_> {
    /// The stage behind the listener.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn accept(&self) -> Result<Accept, SettingError> {
        Ok(Accept {
            rates: Rates::told(self.settings)?,
            store: self.store.events.clone(),
            registry: self.store.registry.clone(),
            keys: self.keys.clone(),
            publisher: self.publisher.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Every stage that hangs on a topic, on the stream or on the clock.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, SettingError> {
        let reject = Reject {
            store: self.store.events.clone(),
            publisher: self.publisher.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let decrypt = Decrypt {
            opener: Opener::new(self.store.registry.clone(), self.keys.clone(), self.metrics.clone()),
            first_use: FirstUse { store: self.store.events.clone(), clock: self.clock.clone() },
            publisher: self.publisher.clone(),
            reject: reject.clone(),
            metrics: self.metrics.clone(),
        };
        let process = Process {
            store: self.store.events.clone(),
            registry: self.store.registry.clone(),
            reject,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let project = Project::new(self.store.read_model.clone(), self.metrics.clone(), self.clock.clone());
        let watch = Watch::new(
            self.store.registry.clone(),
            self.store.read_model.clone(),
            Finder { store: self.store.events.clone() },
            self.clock.clone(),
            self.metrics.clone(),
        );
        let reconcile = Reconcile::told(
            self.settings,
            Finder { store: self.store.events.clone() },
            self.store.shops(),
            self.publisher.clone(),
            (self.clock.clone(), self.metrics.clone()),
        )?;
        Ok(vec![
            decrypt.subscription(),
            process.subscription(),
            project.subscription(),
            watch.subscription(),
            reconcile.subscription(),
        ])
    }
}

/// Every subscriber that its settings do not switch off.
fn plugged(host: &LocalHost) -> Result<Vec<Subscription>, UpError> {
    let made = kassa_subscribers::all()
        .into_iter()
        .map(|entry| (entry.make)(host).map_err(|source| UpError::Subscriber { name: entry.name, source }));
    made.filter_map(Result::transpose).collect()
}

/// How the shop watches itself.
fn watching(host: &LocalHost, bus: &Arc<LocalBus>) -> Result<Parts, UpError> {
    Ok(Parts {
        metrics: host.metrics.clone(),
        bus: Arc::clone(bus),
        alarms: Alarms::of(&Placeholders::of(STACK, STACK)).map_err(UpError::Alarms)?,
        notifier: host.notifier()?,
        documents: host.store.documents(MONITOR, host.clock.clone()),
        clock: host.clock.clone(),
    })
}

/// Each subscriber does every minute what it has to.
fn tick_every<'a>(
    minute: Duration,
    subscriptions: impl Iterator<Item = &'a Subscription>,
    metrics: &Metrics,
    tracer: &Tracer,
) -> JoinSet<()> {
    let tick = |subscription: &Subscription| {
        let (name, subscriber) = (subscription.name, Arc::clone(&subscription.subscriber));
        let (metrics, tracer) = (metrics.clone(), tracer.clone());
        async move {
            let mut minutes = tokio::time::interval(minute);
            minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                minutes.tick().await;
                let begun = Instant::now();
                let span = trace::minute(&tracer, name, None);
                let outcome = span.within(subscriber.tick()).await;
                let outcome = span.ends("minute", outcome);
                invoked(&metrics, name, begun.elapsed(), outcome.is_ok());
                if let Err(why) = outcome {
                    tracing::error!(subscriber = name, %why, "what is due this minute failed");
                }
            }
        }
    };
    subscriptions.map(tick).collect()
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), UpError> {
    let failed = |why| UpError::Listen { address, why };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: axum::Router,
    mut closed: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let until = async move {
        // A dropped sender means the shop is gone.
        let _ = closed.wait_for(|closed| *closed).await;
    };
    tokio::spawn(listener::serve(listener, tls, router, until))
}
