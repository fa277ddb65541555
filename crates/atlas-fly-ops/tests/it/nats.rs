//! The internal feed over loopback, from a peer that speaks NATS's text protocol.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::ErrorKind;
use atlas_fly_ops::{
    FlyToken, LogCursor, LogEvent, LogFilter, LogHub, LogHubOptions, LogSubscription, MintScope,
    NatsFeed, Tokens,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};

use crate::fly::Fly;
use crate::log_api::shop;

/// How the peer is to treat its connections.
#[derive(Clone, Debug)]
enum Order {
    Say(Vec<u8>),
    Hang,
}

/// A NATS server of one subject, with one good password.
struct Peer {
    url: String,
    orders: broadcast::Sender<Order>,
    /// Each CONNECT's user and password.
    greeted: Arc<Mutex<Vec<[String; 2]>>>,
    /// Each subscription, and each end of a connection as `end`.
    seen: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    async fn new(good: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let (orders, _) = broadcast::channel(64);
        let (see, seen) = mpsc::unbounded_channel();
        let greeted = Arc::default();
        let shared = (orders.clone(), Arc::clone(&greeted));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (orders, greeted, see) =
                    (shared.0.subscribe(), Arc::clone(&shared.1), see.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, good, orders, &greeted, &see).await;
                    let _ = see.send("end".into());
                });
            }
        });
        Self {
            url,
            orders,
            greeted,
            seen,
        }
    }

    fn say(&self, message: &str, region: &str) {
        let line = json!({
            "event": { "provider": "app" }, "fly": { "app": { "instance": "m1", "name": "shop" },
                "region": region }, "host": "b3f1",
            "log": { "level": "info" }, "message": message,
                "timestamp": "2026-09-22T08:14:10.123456789Z",
        });
        // Between two connections there is no client to notify.
        let _ = self.orders.send(Order::Say(line.to_string().into_bytes()));
    }

    /// What it saw next.
    async fn sees(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(60), self.seen.recv())
            .await
            .expect("in time")
            .expect("the peer runs")
    }
}

async fn serve(
    mut stream: TcpStream,
    good: &str,
    mut orders: broadcast::Receiver<Order>,
    greeted: &Mutex<Vec<[String; 2]>>,
    see: &mpsc::UnboundedSender<String>,
) -> std::io::Result<()> {
    let info = json!({
        "server_id": "peer", "server_name": "peer", "version": "2.10.0", "go": "go1.22",
            "host": "127.0.0.1", "port": 4223,
        "headers": true, "max_payload": 1_048_576, "proto": 1, "client_id": 1,
            "auth_required": true,
    });
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    write
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await?;
    let mut subscription = None;
    loop {
        tokio::select! {
            biased;
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let mut words = line.split(' ');
                match words.next() {
                    Some("CONNECT") => {
                        let options: Value = serde_json::from_str(&line["CONNECT ".len()..])?;
                        let [user, pass] = ["user",
                            "pass"].map(|name| options[name].as_str().unwrap_or_default().to_owned());
                        let refused = pass != good;
                        greeted.lock().unwrap().push([user, pass]);
                        if refused {
                            write.write_all(b"-ERR 'Authorization Violation'\r\n").await?;
                            return Ok(());
                        }
                    }
                    Some("PING") => write.write_all(b"PONG\r\n").await?,
                    Some("SUB") => {
                        let subject = words.next().unwrap_or_default().to_owned();
                        subscription = words.next_back().map(|sid| (subject.replace(".>",
                            ".fra.m1"), sid.to_owned()));
                        let _ = see.send(subject);
                    }
                    _ => {}
                }
            }
            order = orders.recv() => match (order, &subscription) {
                (Ok(Order::Say(line)), Some((subject, sid))) => {
                    write.write_all(format!("MSG {subject} {sid} {}\r\n",
                        line.len()).as_bytes()).await?;
                    write.write_all(&line).await?;
                    write.write_all(b"\r\n").await?;
                }
                (Ok(Order::Hang) | Err(_), _) => return Ok(()),
                _ => {}
            },
        }
    }
}

fn hub(peer: &Peer, tokens: Tokens) -> LogHub {
    LogHub::over_nats(
        NatsFeed::at(&peer.url, "acme", tokens),
        LogHubOptions::default(),
    )
}

async fn next(subscription: &mut LogSubscription) -> LogEvent {
    tokio::time::timeout(Duration::from_secs(60), subscription.next())
        .await
        .expect("in time")
        .expect("not its end")
}

async fn message(subscription: &mut LogSubscription) -> String {
    match next(subscription).await {
        LogEvent::Entry(entry) => format!(
            "{} {}",
            entry.region.as_deref().unwrap(),
            entry.message.as_deref().unwrap()
        ),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn lines_are_pushed_to_every_subscriber_and_what_is_lost_is_said_to_be() {
    let mut peer = Peer::new("fm2_a,fm2_b").await;
    let token = FlyToken::parse("FlyV1 fm2_a,fm2_b,fo1_c").unwrap();
    let hub = hub(
        &peer,
        Tokens::builder()
            .config_file(None)
            .cli(None)
            .environment(Some(token))
            .build(),
    );
    let mut all = hub.subscribe(&shop(), LogFilter::all(), None);
    let mut fra = hub.subscribe(&shop(), LogFilter::all().region("fra"), Some(LogCursor(1)));
    assert_eq!(
        next(&mut fra).await,
        LogEvent::Gap(ErrorKind::Unsupported),
        "the feed has no past"
    );
    assert_eq!(peer.sees().await, "logs.shop.>");
    peer.say("one", "ams");
    peer.say("two", "fra");
    peer.orders.send(Order::Say(b"no json".to_vec())).unwrap();
    peer.say("two", "fra");
    assert_eq!(
        [
            message(&mut all).await,
            message(&mut all).await,
            message(&mut all).await
        ],
        ["ams one", "fra two", "fra two"]
    );
    assert_eq!(
        [message(&mut fra).await, message(&mut fra).await],
        ["fra two", "fra two"]
    );

    peer.orders.send(Order::Hang).unwrap();
    assert_eq!(next(&mut all).await, LogEvent::Gap(ErrorKind::Transport));
    // The library connects once more by itself before it is dropped: the last listener has to
    // receive it.
    let heard = loop {
        peer.say("again", "fra");
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(100), all.next()).await {
            break event;
        }
    };
    assert!(
        matches!(heard, Some(LogEvent::Entry(entry)) if entry.message.as_deref() == Some("again"))
    );
    let greeted = peer.greeted.lock().unwrap().clone();
    assert!(
        greeted.len() >= 2
            && greeted
                .iter()
                .all(|words| words == &["acme", "fm2_a,fm2_b"]),
        "{greeted:?}"
    );

    drop((all, fra));
    // The last subscriber's end is the connection's.
    while peer.orders.receiver_count() > 0 {
        peer.sees().await;
    }
}

#[test]
fn a_feeds_debug_output_shows_no_password() {
    let tokens = Tokens::builder().config_file(None).cli(None).build();
    let printed = format!(
        "{:?}",
        NatsFeed::at("nats://me:s3cret@[fdaa::3]:4223", "acme", tokens)
    );
    assert!(
        printed.contains("[fdaa::3]:4223") && !printed.contains("s3cret"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_five_refusals_end_the_reading() {
    let mut peer = Peer::new("fm2_mint1").await;
    let fake = Fly::standard();
    let tokens = || {
        let old = FlyToken::parse("fo1_old").unwrap();
        Tokens::builder()
            .config_file(None)
            .cli(Some(fake.cli()))
            .scope(MintScope::ReadOrganisation(Some("acme".into())))
            .environment(Some(old))
            .build()
    };
    let renewed = hub(&peer, tokens());
    let mut subscription = renewed.subscribe(&shop(), LogFilter::all(), None);
    assert_eq!(
        next(&mut subscription).await,
        LogEvent::Gap(ErrorKind::Unauthorized)
    );
    assert_eq!(
        (peer.sees().await.as_str(), peer.sees().await.as_str()),
        ("end", "logs.shop.>")
    );
    peer.say("here", "fra");
    assert_eq!(message(&mut subscription).await, "fra here");
    drop(subscription);

    fake.doing("exit 1").unwrap();
    let refused = hub(&peer, tokens());
    let mut subscription = refused.subscribe(&shop(), LogFilter::all(), None);
    assert_eq!(
        next(&mut subscription).await,
        LogEvent::Gap(ErrorKind::Unauthorized)
    );
    assert_eq!(
        next(&mut subscription).await,
        LogEvent::Stopped(Some(ErrorKind::Unauthorized))
    );
}
