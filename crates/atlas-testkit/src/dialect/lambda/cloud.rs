//! Lambda's row in the list of simulated clouds.

use atlas_core::{ComputeRequest, Gpu};
use http::Method;
use serde_json::Value;

use super::{Lambda, NAME, Quirks, cloud};
use crate::dialect::cloud::{
    Api, ClientSetup, KeyIn, Served, Setting, SimulatedCloud, Started, Strangers, Traffic, Url,
    Usage, is_one_of, limits, segments,
};
use crate::world::{MachineSpec, World};

/// Lambda Cloud.
pub const CLOUD: SimulatedCloud = SimulatedCloud {
    name: NAME,
    account: None,
    spec: cloud,
    reports_birth: false,
    listeners: &["control"],
    urls: &[Url {
        name: "control",
        listener: "control",
        path: "/api/v1",
    }],
    start,
    furnish: |_, _| {},
    client: ClientSetup {
        key: "LAMBDA_LABS_API_KEY",
        urls: &[("ATLAS_LAMBDA_URL", "control")],
        settings: &[],
    },
    usage: Usage {
        machine: || ComputeRequest::gpu(Gpu::A10),
        portless_differs: false,
        spot: false,
        limits: limits(120, 60, 1_000, 1, 4),
        open_variables: &[],
    },
    strangers: Strangers {
        machine: |_| MachineSpec::gpu("gpu_1x_a10", 1),
        copy: |_, _| {},
        key_in: KeyIn::Tags,
        // A firewall rule set cannot be deleted while a machine uses it.
        share_support: true,
    },
    traffic: Traffic {
        orders: |method, path| {
            method == Method::POST && path.trim_end_matches('/').ends_with("/launch")
        },
        reads: |method, path| method == Method::GET && is_one_of(path, "instances"),
        ends,
        deleted: (200, r#"{"data":{"terminated_instances":[]}}"#),
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
    let lambda = Lambda::new(world.clone()).with_quirks(quirks);
    Started {
        services: vec![Served::Api(Api::new(lambda.clone()))],
        reset: Box::new(move || lambda.reset()),
    }
}

fn ends(_: &World, method: &Method, path: &str, body: &[u8]) -> Vec<String> {
    match (method, segments(path).as_slice()) {
        (&Method::POST, [.., "instance-operations", "terminate"]) => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let ids = body["instance_ids"].as_array().into_iter().flatten();
            ids.filter_map(|id| id.as_str().map(str::to_owned))
                .collect()
        }
        _ => Vec::new(),
    }
}
