//! A log API in process: JSON:API pages, a nanosecond cursor, faults, and its own list of what was written.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use atlas_core::Timestamp;
use atlas_fly_ops::{AnyTokenStore, AppName, FlyToken, LogClient, MemoryTokenStore, StoredToken, TokenSlot, Tokens};
use atlas_http::{Body, Transport};
use http::{Request, Response};
use serde_json::{Value, json};

pub(crate) const BASE_NS: u64 = 1_790_000_000_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) ns: u64,
    pub(crate) id: Option<String>,
    pub(crate) message: String,
    pub(crate) region: &'static str,
}

pub(crate) struct State {
    pub(crate) entries: Vec<Written>,
    pub(crate) page: usize,
    /// Whether the cursor's own nanosecond comes again.
    pub(crate) inclusive: bool,
    pub(crate) token_as_number: bool,
    /// The only `Authorization` that is good.
    pub(crate) accepts: &'static str,
    /// Answers of the next requests, before anything else is looked at.
    pub(crate) faults: VecDeque<u16>,
    pub(crate) requests: usize,
}

#[derive(Clone)]
pub(crate) struct LogWorld(pub(crate) Arc<Mutex<State>>);

pub(crate) fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

impl LogWorld {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            entries: Vec::new(),
            page: 100,
            inclusive: false,
            token_as_number: false,
            accepts: "FlyV1 fm2_good",
            faults: VecDeque::new(),
            requests: 0,
        })))
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }

    /// Writes one with an id of its own.
    pub(crate) fn write(&self, ns: u64, message: &str) {
        let mut state = self.0.lock().unwrap();
        let id = Some(format!("shop-{}", state.entries.len()));
        state.entries.push(Written { ns, id, message: message.to_owned(), region: "fra" });
    }

    /// A client with these tokens: the stored one, and the manual one after it.
    pub(crate) async fn client(&self, stored: Option<&str>, manual: &str) -> LogClient {
        let store = AnyTokenStore::new(MemoryTokenStore::default());
        let ends = Some(Timestamp::from_unix_seconds(4_000_000_000));
        for (slot, text, expires_at) in [(TokenSlot::Cached, stored, ends), (TokenSlot::Manual, Some(manual), None)] {
            if let Some(text) = text {
                let token = FlyToken::parse(text).unwrap();
                store.put(&shop(), slot, StoredToken { token, expires_at, name: None }).await.unwrap();
            }
        }
        let tokens = Tokens::builder().store(store).config_file(None).cli(None).build();
        let world = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let world = world.clone();
            async move {
                // As a network would: others run meanwhile.
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(world.answer(&request))
            }
        });
        LogClient::with_transport(tokens, "https://api.example", Transport::new(service))
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let mut state = self.0.lock().unwrap();
        state.requests += 1;
        let plain = |status: u16| Response::builder().status(status).body(Body::from(b"no".to_vec())).unwrap();
        if let Some(status) = state.faults.pop_front() {
            return plain(status);
        }
        if request.headers()["authorization"] != state.accepts {
            return plain(401);
        }
        if request.uri().path() != "/api/v1/apps/shop/logs" {
            return plain(404);
        }
        let query = request.uri().query().unwrap_or_default();
        let asked: Option<u64> = query.split('&').find_map(|pair| pair.strip_prefix("next_token=")).map(|ns| ns.parse().unwrap());
        let mut entries: Vec<&Written> = state.entries.iter().collect();
        // Stable: those of one nanosecond stay in the order they were written.
        entries.sort_by_key(|entry| entry.ns);
        let page: Vec<&Written> = match asked {
            None => entries.split_off(entries.len().saturating_sub(state.page)),
            Some(ns) => entries
                .into_iter()
                .filter(|entry| if state.inclusive { entry.ns >= ns } else { entry.ns > ns })
                .take(state.page)
                .collect(),
        };
        let next = page.last().map(|entry| entry.ns).or(asked);
        let token = match next {
            None => json!(""),
            Some(ns) if state.token_as_number => json!(ns),
            Some(ns) => json!(ns.to_string()),
        };
        let data: Vec<Value> = page.into_iter().map(entry).collect();
        let document = json!({ "data": data, "meta": { "next_token": token } });
        Response::new(Body::from(serde_json::to_vec(&document).unwrap()))
    }
}

fn entry(written: &Written) -> Value {
    let seconds = i64::try_from(written.ns / 1_000_000_000).unwrap();
    let second = Timestamp::from_unix_seconds(seconds).to_string();
    let timestamp = format!("{}.{:09}Z", second.trim_end_matches('Z'), written.ns % 1_000_000_000);
    json!({
        "id": written.id,
        "type": "log",
        "attributes": { "timestamp": timestamp, "message": written.message, "level": "info", "instance": "m1", "region": written.region },
    })
}
