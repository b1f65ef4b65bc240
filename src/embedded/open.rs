//! `kassa up`: from a data folder to an open shop, and back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kassa_bus::local::{LocalBus, Redelivery, STACK};
use kassa_bus::table::TableError;
use kassa_bus::{Clock, Host, Metrics, SettingError, Settings, Source, Subscription, Tracer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::data::{DATA, DataFolder, Occupant, OpenError};
use super::database;
use super::dynamodb::Sync;
use super::examine::examine;
use super::host::LocalHost;
use super::http::Door;
use super::keys::FileKeys;
use super::shown::Shown;
use super::stages::Stages;
use super::store::{MONITOR, Store, StoreError};
use super::stream::Reporter;
use super::{minutes, operator, recover};
use crate::console::{self, Access, Feed, Sight};
use crate::custody::CustodyError;
use crate::listener::{self, Limits, Places};
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
    Custody(#[from] CustodyError),
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
    folder: DataFolder,
}

/// Connections of operators at once, who are few: a quarter of them is one machine's, which is this one.
const OPERATORS: usize = 512;

/// How long closing waits for what is still on its way. What is left is published again at the next
/// start.
const DRAIN: Duration = Duration::from_secs(30);

/// How long closing waits for whoever collects traces.
const LAST_EXPORT: Duration = Duration::from_secs(5);

fn places_of_operators() -> Arc<Places> {
    Places::new(Limits { connections: OPERATORS, ..Limits::default() })
}

/// How long a minute lasts.
fn minute(settings: &Settings) -> Result<Duration, SettingError> {
    let minute = settings.duration("MINUTE", Duration::from_mins(1))?;
    let wrong = SettingError::Wrong { name: "MINUTE", what: "longer than nothing, such as 1m" };
    if minute.is_zero() { Err(wrong) } else { Ok(minute) }
}

impl OpenShop {
    /// Opens the shop: database, keys, registry, stages, listeners.
    ///
    /// # Errors
    /// [`UpError`].
    pub async fn open(up: Up) -> Result<Self, UpError> {
        // Whatever can be known to be wrong before there is a shop is found out before there is one.
        let mut folder = DataFolder::create(&up.data).await?;
        let tls = up.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let (tills, address) = listen(up.listen).await?;
        let (operators, operator) = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let metrics = Metrics::default();
        let resource = [("service.name", "kassa".to_owned()), ("service.namespace", STACK.to_owned())];
        let tracer = Tracer::new(&up.settings, resource, up.clock.clone(), otlp::connect)?;
        let minute = minute(&up.settings)?;
        let (store, keys, plan) = ready(&folder, &up).await?;

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
        let host = LocalHost {
            store: store.clone(),
            keys: keys.clone(),
            settings: up.settings,
            clock: up.clock.clone(),
            metrics: metrics.clone(),
            feed: feed.clone(),
        };
        let plugged = plugged(&host)?;
        let monitor = Collector::open(watching(&host, &bus)?).await?;
        // What is set is right: they may begin.
        let projections = project(on_stream, &store, &reporter, &ended);
        let ticking = others.iter().chain(&plugged).filter(|s| s.every_minute);
        let ticking = minutes::tick_every(minute, ticking, &metrics, &tracer);
        let working = bus.start(others, plugged, &store.kept(&up.clock));
        tokio::spawn(Arc::clone(&monitor).run(minute, closed.clone()));

        let questions = Arc::new(questions(&store, &bus, up.clock.clone()));
        let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let operator_url = format!("http://{operator}");
        let token = uuid::Uuid::new_v4().simple().to_string();
        let occupant = Occupant { pid: std::process::id(), url, operator_url, token };
        let sight = Sight {
            questions: questions.clone(),
            monitor: monitor.clone(),
            feed: feed.clone(),
            access: Access::on(address, tls.is_some()),
            clock: up.clock.clone(),
            reach: reach(&up.data),
        };
        let console = sight.access.address(&occupant.url);
        tokio::spawn(seed(feed.clone(), questions.clone(), up.clock.clone()));
        let places = places(tls.is_some());
        let parts = (bus.clone(), metrics.clone(), tracer.clone());
        let door = Door::new(accept, parts, places.clone(), sight.access.clone());
        let door = door.router(console::router(sight));
        // From here on sales come in, and nothing may fail.
        folder.announce(&occupant)?;
        folder.keep();
        let tills = serve(tills, tls, door, places, closed.clone());
        let answers = operator::router(
            questions.clone(),
            monitor.clone(),
            keys,
            bus.clone(),
            up.clock.clone(),
            &occupant.token,
        );
        // Questions may stream for minutes, so these are cut off at the end.
        tokio::spawn(serve(operators, None, answers, places_of_operators(), closed));

        let exporting = tokio::spawn(tracer.clone().run());
        let resuming = tokio::spawn(recover::resume(questions, store.clone(), bus.clone(), metrics.clone()));
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
            folder,
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
        // Whoever copies the file of a shop that is closed has the shop.
        if let Err(why) = database::checkpoint(&self.folder.database()) {
            tracing::warn!(%why, "the database's last writes stay in its log, shop.db-wal");
        }
        self.bus.outstanding()
    }
}

/// Tables and keys, as `shops.toml` declares them, and what was changed for that.
async fn ready(folder: &DataFolder, up: &Up) -> Result<(Store, Arc<FileKeys>, Plan), UpError> {
    if folder.lost_its_database() {
        tracing::warn!(
            folder = %folder.path().display(),
            "there are keys and no shop.db: the shop begins anew; if it was lost, close the shop and restore a backup"
        );
    }
    let store = Store::open(Some(&folder.database()), up.sync).await?;
    let failed = |why| UpError::Keys { folder: folder.keys(), why };
    let keys = Arc::new(FileKeys::open(&folder.keys()).map_err(failed)?);
    let now = up.clock.now();
    for (shop, kid) in examine(&keys, &store.registry, now).await? {
        tracing::warn!(%shop, %kid, "a key of long ago is gone; what it sealed and was not opened cannot be opened");
    }
    let plan = Plan::make(&up.shops, &*keys, &store.registry, &store.read_model).await?;
    let refused = plan.carry_out(&*keys, &store.registry, &store.read_model, now).await?;
    for row in plan.unreadable.iter().chain(&refused) {
        tracing::error!(row, "left as it is; see kassa check");
    }
    Ok((store, keys, plan))
}

/// Asked of a shop that is open, whose bus takes back what its queues gave up.
fn questions(store: &Store, bus: &Arc<LocalBus>, clock: Clock) -> Questions {
    let dead_letters = Arc::new(store.dead_letters(Some(bus.clone())));
    Questions::new(Books { dead_letters, clock, ..store.books() })
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

/// What commands need to be told to ask the shop in this folder.
fn reach(data: &Path) -> String {
    if data == Path::new(DATA) { String::new() } else { format!(" --data {}", data.display()) }
}

/// What was sold before the shop was opened.
async fn seed(feed: Arc<Feed>, questions: Arc<Questions>, clock: Clock) {
    if let Err(error) = feed.ask(&questions, clock.now()).await {
        tracing::warn!(%error, "the console begins without the latest sales");
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

/// For tills, browsers and strangers. By TLS a connection takes twice as much memory.
fn places(tls: bool) -> Arc<Places> {
    let limits = Limits::default();
    Places::new(if tls { Limits { connections: limits.connections / 2, ..limits } } else { limits })
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
    places: Arc<Places>,
    mut closed: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let until = async move {
        // A dropped sender means the shop is gone.
        let _ = closed.wait_for(|closed| *closed).await;
    };
    tokio::spawn(listener::serve(listener, tls, router, places, until))
}
