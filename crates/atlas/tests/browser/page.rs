//! The application's page, served by its own server: it requests a plan, follows it, and reports
//! what happened.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::PATIENCE;

const PAGE: &str = r#"<!doctype html><title>player</title><script>
const tell = (what) => fetch('/told/' + encodeURIComponent(what));
const play = (url) => new Promise((done) => {
  const audio = new Audio(url);
  audio.onended = () => done('played');
  audio.onerror = () => done('refused');
  audio.play().catch(() => {});
});
const open = (url) => new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send('tick');
  socket.onmessage = () => done(socket);
  socket.onerror = () => done(null);
});
(async () => {
  const plan = await (await fetch('/plan')).json();
  await tell('bare-media-' + await play(plan.bare_media));
  await tell('bare-status-' + (await fetch(plan.bare_media)).status);
  await tell('bare-socket-' + (await open(plan.bare_socket) ? 'open' : 'refused'));
  await tell('media-' + await play(plan.media));
  const socket = await open(plan.socket);
  await tell('socket-' + (socket ? 'open' : 'refused'));
  const ticking = setInterval(() => socket.send('tick'), 100);
  socket.onmessage = (message) => {
    if (message.data !== 'hush') return;
    clearInterval(ticking);
    socket.onmessage = null;
    tell('hushed');
  };
})().catch((error) => tell('error-' + error));
</script>"#;

pub(crate) struct Page {
    address: SocketAddr,
    plan: watch::Sender<Option<String>>,
    told: mpsc::UnboundedReceiver<String>,
}

impl Page {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (plan, planned) = watch::channel(None);
        let (teller, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, planned.clone(), teller.clone()));
            }
        });
        Self {
            address,
            plan,
            told,
        }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/", self.origin())
    }

    /// Waits until a browser has loaded the page and its script runs.
    pub(crate) async fn asked(&mut self) {
        assert_eq!(self.told().await, "asked");
    }

    pub(crate) fn plan(&self, plan: &serde_json::Value) {
        self.plan.send_replace(Some(plan.to_string()));
    }

    /// The next report of the page.
    pub(crate) async fn told(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.told.recv())
            .await
            .expect("the page tells")
            .expect("the server is there")
    }
}

async fn answer(
    stream: TcpStream,
    mut plan: watch::Receiver<Option<String>>,
    told: mpsc::UnboundedSender<String>,
) {
    let mut stream = BufReader::new(stream);
    let mut target = String::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        if target.is_empty() {
            target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        line.clear();
    }
    let (status, kind, body) = match target.as_str() {
        "/" => ("200 OK", "text/html", PAGE.to_owned()),
        "/plan" => {
            told.send("asked".to_owned()).unwrap();
            let plan = plan
                .wait_for(Option::is_some)
                .await
                .unwrap()
                .clone()
                .unwrap_or_default();
            ("200 OK", "application/json", plan)
        }
        target => match target.strip_prefix("/told/") {
            Some(what) => {
                told.send(what.to_owned()).unwrap();
                ("200 OK", "text/plain", String::new())
            }
            None => ("404 Not Found", "text/plain", String::new()),
        },
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: \
            close\r\n\r\n"
    );
    // The browser may have disconnected.
    let _left = stream.write_all((head + &body).as_bytes()).await;
}
