//! One reader per app for all its subscribers. The first subscriber starts it, the last ends it;
//! subscribers do not wait for each other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_core::{Backoff, Clock, Entropy, ErrorKind, SystemClock, SystemEntropy, Timestamp};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::app_name::AppName;
use crate::logs::client::{LogClient, LogFilter};
#[cfg(feature = "nats")]
use crate::logs::nats::{NatsFeed, Pushed};
use crate::logs::tail::{Key, Tail};
use crate::logs::wire::{LogCursor, LogEntry};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// Number of consecutive refusals after which a reader gives up: the API sometimes refuses valid
/// tokens.
const MOST_REFUSALS: u32 = 5;
/// The maximum wait that the API can request.
const MOST_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How long an app may be unknown, because it may have just been created.
const GRACE_UNKNOWN: Duration = Duration::from_secs(60);

/// An event for a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEvent {
    /// An entry.
    Entry(Arc<LogEntry>),
    /// This subscriber was too slow: this many events were dropped for it only.
    Lagged(u64),
    /// Reading is interrupted by an error. Entries produced during the interruption are delivered
    /// on reconnect, where the API still has them.
    Gap(ErrorKind),
    /// The end: stopped (`None`), or given up for this reason.
    Stopped(Option<ErrorKind>),
}

/// The options of a hub.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogHubOptions {
    /// How many events a subscriber may be behind. 4,096 by default.
    pub buffer: usize,
    /// The shortest wait between rounds, used after one with entries. 1 s by default.
    pub shortest_wait: Duration,
    /// The longest wait, reached after rounds without entries. 5 s by default.
    pub longest_wait: Duration,
    /// How late an entry may arrive and still be delivered. 5 s by default.
    pub overlap: Duration,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The jitter's randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for LogHubOptions {
    fn default() -> Self {
        Self {
            buffer: 4096,
            shortest_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(5),
            overlap: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }
}

/// Shares readers of logs among subscribers. Cheap to clone.
#[derive(Clone)]
pub struct LogHub(Arc<Inner>);

struct Inner {
    source: Source,
    options: LogHubOptions,
    readers: Mutex<Readers>,
}

/// The source of entries.
#[derive(Clone, Debug)]
enum Source {
    /// The log API, polled.
    Api(LogClient),
    /// The internal feed, which has no history.
    #[cfg(feature = "nats")]
    Feed(NatsFeed),
}

#[derive(Default)]
struct Readers {
    by_app: BTreeMap<AppName, Reader>,
    started: u64,
}

struct Reader {
    number: u64,
    subscribers: usize,
    events: broadcast::Sender<Heard>,
    stop: CancellationToken,
}

/// An event, what its entry is known by, and from where to read it again.
#[derive(Clone)]
struct Heard {
    event: LogEvent,
    key: Option<Key>,
    at: Option<LogCursor>,
}

impl Heard {
    const fn about(event: LogEvent) -> Self {
        Self {
            event,
            key: None,
            at: None,
        }
    }
}

impl LogHub {
    /// A hub over this client.
    #[must_use]
    pub fn new(client: LogClient, options: LogHubOptions) -> Self {
        Self::over(Source::Api(client), options)
    }

    /// A hub over the internal feed: lines arrive at once, and only from now on. A subscriber with
    /// a cursor first gets a [`LogEvent::Gap`] (`unsupported`).
    #[cfg(feature = "nats")]
    #[must_use]
    pub fn over_nats(feed: NatsFeed, options: LogHubOptions) -> Self {
        Self::over(Source::Feed(feed), options)
    }

    fn over(source: Source, options: LogHubOptions) -> Self {
        Self(Arc::new(Inner {
            source,
            options,
            readers: Mutex::default(),
        }))
    }

    /// Subscribes. With a cursor, the entries since then are delivered first, then new ones, each
    /// once. Without one, the first subscriber gets the newest page. Must be called inside a tokio
    /// runtime.
    #[must_use]
    pub fn subscribe(
        &self,
        app: &AppName,
        filter: LogFilter,
        from: Option<LogCursor>,
    ) -> LogSubscription {
        let mut readers = self.0.readers();
        let Readers { by_app, started } = &mut *readers;
        let reader = by_app.entry(app.clone()).or_insert_with(|| {
            *started += 1;
            let (events, _) = broadcast::channel(self.0.options.buffer.max(1));
            let stop = CancellationToken::new();
            Reader {
                number: *started,
                subscribers: 0,
                events,
                stop,
            }
        });
        reader.subscribers += 1;
        let heard = reader.events.subscribe();
        if reader.subscribers == 1 {
            let span = tracing::info_span!("fly.logs.reader", app = app.as_str());
            let (events, stop, number) =
                (reader.events.clone(), reader.stop.clone(), reader.number);
            tokio::spawn(read(self.0.clone(), app.clone(), events, stop, number).instrument(span));
        }
        LogSubscription {
            hub: self.0.clone(),
            app: app.clone(),
            number: reader.number,
            filter,
            heard,
            catch_up: self.0.catch_up(from),
            pastless: from.is_some() && self.0.client().is_none(),
            from: from.map(LogCursor::instant),
            at: from,
            ended: false,
        }
    }

    /// Stops the reader of an app; each of its subscribers gets [`LogEvent::Stopped`]. Returns
    /// whether there was one.
    pub fn stop(&self, app: &AppName) -> bool {
        let reader = self.0.readers().by_app.remove(app);
        reader.map(|reader| reader.stop.cancel()).is_some()
    }

    /// Whether an app is being read.
    #[must_use]
    pub fn is_running(&self, app: &AppName) -> bool {
        self.0.readers().by_app.contains_key(app)
    }

    /// Passes every event to a sink, in addition to subscriptions, until the app's reader stops or
    /// the task is dropped.
    #[must_use]
    pub fn attach(
        &self,
        app: &AppName,
        filter: LogFilter,
        from: Option<LogCursor>,
        sink: impl LogSink,
    ) -> SinkTask {
        let mut subscription = self.subscribe(app, filter, from);
        SinkTask(tokio::spawn(async move {
            while let Some(event) = subscription.next().await {
                sink.deliver(&subscription.app, event).await;
            }
        }))
    }
}

impl Inner {
    /// The client of the API, where that is the source.
    fn client(&self) -> Option<&LogClient> {
        match &self.source {
            Source::Api(client) => Some(client),
            #[cfg(feature = "nats")]
            Source::Feed(_) => None,
        }
    }

    fn catch_up(&self, from: Option<LogCursor>) -> Option<CatchUp> {
        let (client, from) = (self.client()?.clone(), from?);
        Some(CatchUp {
            client,
            tail: Tail::from(Some(from)),
            ready: VecDeque::new(),
            live: false,
        })
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a reader away, where it is still this one.
    fn remove(&self, app: &AppName, number: u64) {
        let mut readers = self.readers();
        if readers
            .by_app
            .get(app)
            .is_some_and(|reader| reader.number == number)
        {
            readers.by_app.remove(app);
        }
    }
}

impl fmt::Debug for LogHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHub")
            .field("source", &self.0.source)
            .field("readers", &self.0.readers().by_app.len())
            .finish()
    }
}

/// Receives log events in addition to subscriptions: a file, a queue. A slow sink delays only
/// itself; one that panics ends only itself.
pub trait LogSink: Send + Sync + 'static {
    /// Takes an event.
    fn deliver(&self, app: &AppName, event: LogEvent) -> impl Future<Output = ()> + Send;
}

/// A running sink. Dropping this detaches it.
#[derive(Debug)]
pub struct SinkTask(JoinHandle<()>);

impl SinkTask {
    /// Waits until the app's reader has stopped and the sink has received everything.
    pub async fn finished(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for SinkTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads one app until it is stopped.
async fn read(
    hub: Arc<Inner>,
    app: AppName,
    events: broadcast::Sender<Heard>,
    stop: CancellationToken,
    number: u64,
) {
    let reading = async {
        match &hub.source {
            Source::Api(client) => rounds(&hub, client, &app, &events).await,
            #[cfg(feature = "nats")]
            Source::Feed(feed) => {
                let give = |pushed| {
                    let event = match pushed {
                        Pushed::Entry(entry) => LogEvent::Entry(Arc::new(entry)),
                        Pushed::Gap(kind) => LogEvent::Gap(kind),
                    };
                    // It fails only when there is no subscriber; the reader is then being stopped.
                    let _ = events.send(Heard::about(event));
                };
                feed.read(&app, &*hub.options.entropy, give).await
            }
        }
    };
    let reason = stop.run_until_cancelled(reading).await;
    // Removed first, then reported: a subscriber that subscribes again on the report gets a new
    // reader.
    hub.remove(&app, number);
    let _ = events.send(Heard::about(LogEvent::Stopped(reason)));
}

/// Reads round after round; returns the reason for giving up.
async fn rounds(
    hub: &Inner,
    client: &LogClient,
    app: &AppName,
    events: &broadcast::Sender<Heard>,
) -> ErrorKind {
    let options = &hub.options;
    let mut tail = Tail::default();
    let mut wait = options.shortest_wait;
    let (mut failures, mut refusals) = (0_u32, 0_u32);
    let mut unknown_since: Option<Instant> = None;
    loop {
        let at = tail.ask();
        let page = match client.page(app, &LogFilter::all(), at).await {
            Ok(page) => page,
            Err(error) => {
                let kind = error.kind();
                let refused = matches!(kind, ErrorKind::Unauthorized | ErrorKind::Forbidden);
                refusals = if refused { refusals + 1 } else { 0 };
                unknown_since = (kind == ErrorKind::NotFound)
                    .then(|| unknown_since.unwrap_or_else(Instant::now));
                if refusals >= MOST_REFUSALS
                    || unknown_since.is_some_and(|since| since.elapsed() >= GRACE_UNKNOWN)
                {
                    return kind;
                }
                if failures == 0 {
                    tracing::warn!(
                        app = app.as_str(),
                        kind = kind.as_str(),
                        "reading logs is interrupted"
                    );
                    let _ = events.send(Heard::about(LogEvent::Gap(kind)));
                }
                let delay = BACKOFF.delay(failures, &*options.entropy);
                failures = failures.saturating_add(1);
                tokio::time::sleep(
                    error
                        .retry_after()
                        .map_or(delay, |asked| asked.clamp(delay, MOST_PATIENCE.max(delay))),
                )
                .await;
                continue;
            }
        };
        (failures, refusals, unknown_since) = (0, 0, None);
        let first_is_empty = at.is_none() && page.entries.is_empty();
        let (fresh, more) = tail.take(page);
        if first_is_empty {
            let day_ago = options
                .clock
                .now()
                .saturating_sub(Duration::from_secs(24 * 3600))
                .unix_millis();
            tail.nothing_before(
                u64::try_from(day_ago)
                    .unwrap_or(0)
                    .saturating_mul(1_000_000),
            );
        }
        wait = if fresh.is_empty() {
            (wait * 2).min(options.longest_wait)
        } else {
            options.shortest_wait
        };
        // Late entries of before it are read again too.
        let at = at.map(|at| at.before(options.overlap));
        for (key, entry) in fresh {
            // It fails only when there is no subscriber; the reader is then being stopped.
            let _ = events.send(Heard {
                event: LogEvent::Entry(Arc::new(entry)),
                key: Some(key),
                at,
            });
        }
        if !more {
            tokio::time::sleep(wait).await;
            tail.begin(options.overlap);
        }
    }
}

/// A subscriber. Dropping it unsubscribes.
pub struct LogSubscription {
    hub: Arc<Inner>,
    app: AppName,
    number: u64,
    filter: LogFilter,
    heard: broadcast::Receiver<Heard>,
    catch_up: Option<CatchUp>,
    /// It asked for what was before, and there is none: still to be said.
    pastless: bool,
    from: Option<Timestamp>,
    at: Option<LogCursor>,
    ended: bool,
}

/// What was written between a cursor and now.
struct CatchUp {
    client: LogClient,
    tail: Tail,
    ready: VecDeque<LogEntry>,
    live: bool,
}

impl LogSubscription {
    /// The next event; `None` after [`LogEvent::Stopped`]. Cancel safe.
    pub async fn next(&mut self) -> Option<LogEvent> {
        if self.ended {
            return None;
        }
        if std::mem::take(&mut self.pastless) {
            return Some(LogEvent::Gap(ErrorKind::Unsupported));
        }
        let mut failures = 0;
        while let Some(catch_up) = &mut self.catch_up
            && (!catch_up.live || !catch_up.ready.is_empty())
        {
            while let Some(entry) = catch_up.ready.pop_front() {
                if self.filter.matches(&entry) {
                    return Some(LogEvent::Entry(Arc::new(entry)));
                }
            }
            if catch_up.live {
                break;
            }
            let at = catch_up.tail.ask();
            match catch_up.client.page(&self.app, &LogFilter::all(), at).await {
                Ok(page) => {
                    let (fresh, more) = catch_up.tail.take(page);
                    let before = at.map(|at| at.before(self.hub.options.overlap));
                    self.at = self.at.max(before);
                    catch_up
                        .ready
                        .extend(fresh.into_iter().map(|(_, entry)| entry));
                    catch_up.live = !more;
                }
                Err(error) if failures >= MOST_REFUSALS => {
                    catch_up.live = true;
                    return Some(LogEvent::Gap(error.kind()));
                }
                Err(error) => {
                    let delay = BACKOFF.delay(failures, &*self.hub.options.entropy);
                    failures += 1;
                    tokio::time::sleep(
                        error
                            .retry_after()
                            .map_or(delay, |asked| asked.clamp(delay, MOST_PATIENCE.max(delay))),
                    )
                    .await;
                }
            }
        }
        loop {
            let heard = match self.heard.recv().await {
                Ok(heard) => heard,
                Err(RecvError::Lagged(count)) => return Some(LogEvent::Lagged(count)),
                Err(RecvError::Closed) => Heard::about(LogEvent::Stopped(None)),
            };
            if let LogEvent::Entry(entry) = &heard.event {
                let known = self
                    .catch_up
                    .as_mut()
                    .zip(heard.key)
                    .is_some_and(|(catch_up, key)| !catch_up.tail.is_new(key));
                // A reader begins with the newest page, and goes back for late entries: what is
                // before the place asked for was had.
                let before = heard
                    .key
                    .and(self.from)
                    .zip(entry.timestamp)
                    .is_some_and(|(from, at)| at < from);
                if known || before || !self.filter.matches(entry) {
                    continue;
                }
            }
            self.ended = matches!(heard.event, LogEvent::Stopped(_));
            self.at = heard.at.or(self.at);
            return Some(heard.event);
        }
    }

    /// The position to resume from after this event, also in a later process. Entries just before
    /// it may be repeated; none is missed.
    #[must_use]
    pub const fn cursor(&self) -> Option<LogCursor> {
        self.at
    }
}

impl Drop for LogSubscription {
    fn drop(&mut self) {
        let mut readers = self.hub.readers();
        let Some(reader) = readers
            .by_app
            .get_mut(&self.app)
            .filter(|reader| reader.number == self.number)
        else {
            return;
        };
        reader.subscribers -= 1;
        if reader.subscribers == 0 {
            reader.stop.cancel();
            readers.by_app.remove(&self.app);
        }
    }
}

impl fmt::Debug for LogSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSubscription")
            .field("app", &self.app)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}
