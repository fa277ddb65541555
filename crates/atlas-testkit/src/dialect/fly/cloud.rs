//! Fly's row in the list of simulated clouds.

use std::sync::Arc;

use atlas_core::ComputeRequest;
use http::{HeaderMap, Method, Uri};

use super::{APP, Fly, NAME, ORG, Quirks, cloud};
use crate::dialect::cloud::{
    Api, ClientSetup, KeyIn, Served, Setting, SimulatedCloud, Started, Strangers, Traffic, Url,
    Usage, is_one_of, limits, segments,
};
use crate::dialect::fly_logs::{FlyLogs, Rights};
use crate::world::{Machine, MachineSpec, World};

/// An app into which strangers copy machines: a name is unique in its app.
const THEIR_APP: &str = "their-app";
/// The port that a URL without one means.
const HTTPS: u16 = 443;

/// Fly: the Machines API, the log API and the proxy in front of apps.
pub const CLOUD: SimulatedCloud = SimulatedCloud {
    name: NAME,
    account: Some(ORG),
    spec: cloud,
    reports_birth: true,
    listeners: &["machines", "logs", "proxy"],
    urls: &[
        Url {
            name: "machines",
            listener: "machines",
            path: "",
        },
        Url {
            name: "logs",
            listener: "logs",
            path: "",
        },
        // A port other than that of https follows the app's name.
        Url {
            name: "proxy",
            listener: "proxy",
            path: "/{app}",
        },
    ],
    start,
    furnish: |_, _| {},
    client: ClientSetup {
        key: "FLY_API_TOKEN",
        urls: &[
            ("ATLAS_FLY_URL", "machines"),
            ("ATLAS_FLY_PROXY_URL", "proxy"),
        ],
        settings: &[("org", ORG)],
    },
    usage: Usage {
        machine: || ComputeRequest::cpu(1),
        // A machine with ports gets an app of its own; the others share one.
        portless_differs: true,
        spot: false,
        limits: limits(60, 60, 20, 20, 32),
        open_variables: &[],
    },
    strangers: Strangers {
        machine: |_| MachineSpec::cpu("shared-cpu-1x", 1),
        copy: |_, spec| spec.id_suffix = Some(format!(".{THEIR_APP}")),
        key_in: KeyIn::Tags,
        share_support: false,
    },
    traffic: Traffic {
        orders: |method, path| {
            method == Method::POST && path.trim_end_matches('/').ends_with("/machines")
        },
        reads: |method, path| method == Method::GET && is_one_of(path, "machines"),
        ends,
        deleted: (200, r#"{"ok":true}"#),
    },
};

fn start(world: &World, setting: &Setting) -> Started {
    let mut quirks = Quirks::default();
    if !setting.rates {
        quirks.rates = None;
    }
    if let Some(page_size) = setting.page_size {
        quirks.page_size = page_size;
    }
    let fly = Fly::new(world.clone()).with_quirks(quirks);
    if setting.strangers {
        fly.add_app(ORG, THEIR_APP);
    }
    let logs = FlyLogs::new(world.clone());
    if let Some(key) = &setting.key {
        logs.add_token(key, Rights::Read);
    }
    logs.add_machines_of(&fly);
    write(&logs);
    Started {
        services: vec![
            Served::Api(Api::new(fly.clone())),
            Served::Api(Api::new(logs.clone())),
            Served::Ports(Arc::new({
                let fly = fly.clone();
                move |uri, headers| reached(&fly, uri, headers)
            })),
        ],
        reset: Box::new(move || {
            fly.reset();
            logs.reset();
            write(&logs);
        }),
    }
}

/// The lines that the shared app has written when a cloud starts.
fn write(logs: &FlyLogs) {
    for line in ["Starting machine", "listening on :8080", "GET /healthz 200"] {
        logs.print(APP, line);
    }
}

/// The machine and the port of `/{app}/...` or `/{app}:{port}/...`.
fn reached(fly: &Fly, uri: &Uri, headers: &HeaderMap) -> Option<(String, u32)> {
    let first = uri.path().trim_start_matches('/').split('/').next()?;
    let (app, port) = first
        .split_once(':')
        .map_or((first, Some(HTTPS)), |(app, port)| (app, port.parse().ok()));
    let forced = headers
        .get("fly-force-instance-id")
        .and_then(|id| id.to_str().ok());
    fly.reached(app, port?, forced)
}

fn ends(world: &World, method: &Method, path: &str, _: &[u8]) -> Vec<String> {
    if method != Method::DELETE {
        return Vec::new();
    }
    match segments(path).as_slice() {
        [.., "apps", app, "machines", id] => vec![format!("{id}.{app}")],
        // The deletion of an app ends its machines.
        [.., "apps", app] => {
            let live = world.all(NAME).into_iter().filter(Machine::is_live);
            live.map(|machine| machine.id)
                .filter(|id| id.split_once('.').is_some_and(|(_, of)| of == *app))
                .collect()
        }
        _ => Vec::new(),
    }
}
