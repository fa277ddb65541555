//! RunPod's row in the list of simulated clouds.

use std::sync::Arc;

use atlas_core::{ComputeRequest, Gpu};
use http::Method;

use super::{NAME, Quirks, RunPod, add_endpoint, cloud};
use crate::dialect::cloud::{
    Api, ClientSetup, KeyIn, Served, Setting, SimulatedCloud, Started, Strangers, Traffic, Url,
    Usage, is_one_of, limits, segments,
};
use crate::world::{MachineSpec, World};

/// RunPod: REST v2, the job runtime, GraphQL and the proxy in front of pods.
pub const CLOUD: SimulatedCloud = SimulatedCloud {
    name: NAME,
    account: None,
    spec: cloud,
    reports_birth: true,
    listeners: &["control", "runtime", "proxy"],
    urls: &[
        Url {
            name: "control",
            listener: "control",
            path: "",
        },
        Url {
            name: "runtime",
            listener: "runtime",
            path: "/v2",
        },
        Url {
            name: "graphql",
            listener: "control",
            path: "/graphql",
        },
        Url {
            name: "proxy",
            listener: "proxy",
            path: "/{id}/{port}",
        },
    ],
    start,
    furnish: add_endpoint,
    client: ClientSetup {
        key: "RUNPOD_API_KEY",
        urls: &[
            ("ATLAS_RUNPOD_URL", "control"),
            ("ATLAS_RUNPOD_RUNTIME_URL", "runtime"),
            ("ATLAS_RUNPOD_PROXY_URL", "proxy"),
        ],
        settings: &[],
    },
    usage: Usage {
        machine: || ComputeRequest::gpu(Gpu::L40S),
        portless_differs: false,
        spot: true,
        // Four times the bound that is documented, so that histories see late machines.
        limits: limits(120, 30, 50, 20, 16),
        open_variables: &[],
    },
    strangers: Strangers {
        machine: |_| MachineSpec::gpu("NVIDIA L40S", 1),
        copy: |_, _| {},
        key_in: KeyIn::Environment,
        share_support: false,
    },
    traffic: Traffic {
        // Not the orders over GraphQL, which look like its reads.
        orders: |method, path| {
            method == Method::POST && path.trim_end_matches('/').ends_with("/pods")
        },
        reads: |method, path| method == Method::GET && is_one_of(path, "pods"),
        ends: |_, method, path, _| match (method, segments(path).last()) {
            (&Method::DELETE, Some(id)) => vec![(*id).to_owned()],
            _ => Vec::new(),
        },
        deleted: (204, ""),
    },
};

fn start(world: &World, setting: &Setting) -> Started {
    let mut quirks = Quirks::default();
    if let Some(page_size) = setting.page_size {
        quirks.page_size = page_size;
    }
    let runpod = RunPod::new(world.clone()).with_quirks(quirks);
    Started {
        services: vec![
            Served::Api(Api::new(runpod.clone())),
            Served::Api(Api::new(runpod.runtime())),
            Served::Ports(Arc::new(|uri, _| {
                let mut segments = uri.path().trim_start_matches('/').splitn(3, '/');
                Some((segments.next()?.to_owned(), segments.next()?.parse().ok()?))
            })),
        ],
        reset: Box::new(move || runpod.reset()),
    }
}
