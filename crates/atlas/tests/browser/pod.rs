//! A machine from the inside: a guard in front of a server that does not check credentials.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use atlas::{CONTROL_KEY_ENV, SIGNING_SECRET_ENV, SessionInfo};
use atlas_guard::{Config, Guard, Permit};
use data_encoding::BASE64;
use ring::digest;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::PATIENCE;

/// The GUID with which a WebSocket key is hashed (RFC 6455 §1.3).
const WEBSOCKET: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[derive(Debug, Default)]
struct Seen {
    targets: Mutex<Vec<String>>,
    ticks: watch::Sender<u64>,
    hush: watch::Sender<bool>,
}

pub(crate) struct Pod {
    pub(crate) guard: SocketAddr,
    /// The permit that ends the machine if no atlas renews it.
    pub(crate) permit: Permit,
    seen: Arc<Seen>,
}

impl Pod {
    /// Starts the guard with the credential that the session's machine has in its environment.
    pub(crate) async fn start(session: &SessionInfo, origins: &str) -> Self {
        let seen = Arc::<Seen>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        let credential = session.auth.as_ref().unwrap();
        let secret = credential.secret().expose().to_owned();
        let control = credential.control_key().unwrap().to_owned();
        let lookup = |name| match name {
            SIGNING_SECRET_ENV => Some(secret.clone()),
            CONTROL_KEY_ENV => Some(control.clone()),
            "ATLAS_GUARD_CORS_ORIGINS" => Some(origins.to_owned()),
            "ATLAS_GUARD_PERMIT_SECS" => Some("2".to_owned()),
            _ => None,
        };
        let config = Config::from_env(lookup)
            .unwrap()
            .listen("127.0.0.1:0")
            .unwrap()
            .upstream(&server.to_string())
            .unwrap();
        let guard = Guard::bind(config).await.unwrap();
        let (address, permit) = (guard.local_addr().unwrap(), guard.permit());
        tokio::spawn(guard.serve(std::future::pending()));
        Self {
            guard: address,
            permit,
            seen,
        }
    }

    /// The distinct targets that the server was asked for.
    pub(crate) fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.targets.lock().unwrap().clone();
        seen.dedup();
        seen
    }

    /// The status of an attempt to open a WebSocket.
    pub(crate) async fn upgrade(&self, target: &str) -> u16 {
        let mut stream = TcpStream::connect(self.guard).await.unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: \
                websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.guard
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The status of a control call made with this token.
    pub(crate) async fn control(&self, call: &str, token: &str) -> u16 {
        let mut stream = TcpStream::connect(self.guard).await.unwrap();
        let head = format!(
            "POST /_atlas/{call} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-length: 0\r\n\r\n",
            self.guard
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Waits until the browser has sent this many more messages.
    pub(crate) async fn ticks(&self, more: u64) {
        let mut ticks = self.seen.ticks.subscribe();
        let goal = *ticks.borrow() + more;
        tokio::time::timeout(PATIENCE, ticks.wait_for(|ticks| *ticks >= goal))
            .await
            .expect("it ticks")
            .unwrap();
    }

    /// Asks the browser to be silent.
    pub(crate) fn hush(&self) {
        self.seen.hush.send_replace(true);
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let mut stream = BufReader::new(stream);
    let (mut target, mut key, mut line) = (String::new(), String::new(), String::new());
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        if target.is_empty() {
            target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            key = value.trim().to_owned();
        }
        line.clear();
    }
    seen.targets.lock().unwrap().push(target);
    // A client that disconnected receives nothing more; what is under test is the guard in front.
    let _left = if key.is_empty() {
        send_media(&mut stream).await
    } else {
        talk(&mut stream, &key, &seen).await
    };
}

/// A quarter of a second of silence: RIFF, 8 kHz, one channel of 8 bits.
async fn send_media(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let sound = [0x80_u8; 2000];
    let mut wave = Vec::from(*b"RIFF\0\0\0\0WAVEfmt ");
    for field in [
        &16_u32.to_le_bytes()[..],
        &[1, 0, 1, 0],
        &8000_u32.to_le_bytes(),
        &8000_u32.to_le_bytes(),
        &[1, 0, 8, 0],
    ] {
        wave.extend(field);
    }
    wave.extend(b"data");
    wave.extend(2000_u32.to_le_bytes());
    wave.extend(sound);
    let rest = u32::try_from(wave.len() - 8).unwrap_or_default();
    wave[4..8].copy_from_slice(&rest.to_le_bytes());
    let length = wave.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: {length}\r\nconnection: \
            close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&wave).await
}

/// Answers every message; the answer is `hush` once the browser is to be silent.
async fn talk(stream: &mut BufReader<TcpStream>, key: &str, seen: &Seen) -> std::io::Result<()> {
    let accept = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        [key, WEBSOCKET].concat().as_bytes(),
    );
    let accept = BASE64.encode(accept.as_ref());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: \
            websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    loop {
        // First byte, length with its mask bit, mask; a tick is shorter than 126 bytes.
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        stream.read_exact(&mut payload).await?;
        if head[0] & 0x0f != 1 {
            return Ok(());
        }
        seen.ticks.send_modify(|ticks| *ticks += 1);
        let answer: &[u8] = if *seen.hush.borrow() {
            b"hush"
        } else {
            b"tock"
        };
        stream.write_all(&[&[0x81, 4], answer].concat()).await?;
    }
}
