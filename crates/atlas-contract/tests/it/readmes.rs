//! The table of operations in a provider crate's README is what its provider declares.

use std::collections::BTreeMap;
use std::path::Path;

use atlas_contract::cloud::{CLOUDS, CloudSubject};
use atlas_core::{Capability, Port};
use atlas_testkit::conformance::Subject;

/// The operations with a capability of their own.
const OPTIONAL: [(&str, Capability); 11] = [
    ("stop", Capability::Stop),
    ("start", Capability::Start),
    ("logs", Capability::Logs),
    ("run_job", Capability::Serverless),
    ("get_job", Capability::Serverless),
    ("cancel_job", Capability::Serverless),
    ("stream_job", Capability::JobStreaming),
    ("list_network_volumes", Capability::NetworkVolumes),
    ("create_network_volume", Capability::NetworkVolumes),
    ("delete_network_volume", Capability::NetworkVolumes),
    ("compute_spend", Capability::Spend),
];

/// Every provider honours these.
const REQUIRED: [&str; 8] = [
    "identity",
    "candidates",
    "spawn_compute",
    "get_compute",
    "list_compute",
    "presence",
    "terminate",
    "list_gpu_types",
];

/// The rows of the table, by operation: whether it is honoured.
fn table(readme: &str) -> BTreeMap<&str, bool> {
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let operation = cells.next()?.trim_end_matches('`');
        Some((operation, cells.next()? == "yes"))
    });
    rows.collect()
}

#[tokio::test(start_paused = true)]
async fn a_readme_lists_every_operation_and_whether_the_provider_honours_it() {
    for cloud in CLOUDS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../atlas-provider-{}/README.md", cloud.name));
        let readme = std::fs::read_to_string(path).unwrap();
        let table = table(&readme);
        let subject = CloudSubject::new(*cloud, 1);
        let provider = subject.fresh().await.unwrap();
        for operation in REQUIRED {
            assert_eq!(
                table.get(operation),
                Some(&true),
                "{}: {operation}",
                cloud.name
            );
        }
        for (operation, capability) in OPTIONAL {
            let declared = provider.capabilities().has(capability);
            assert_eq!(
                table.get(operation),
                Some(&declared),
                "{}: {operation}",
                cloud.name
            );
        }
        let request = (cloud.request)().port(Port::http(8000));
        let request = request.region(cloud.region.unwrap_or_default());
        let planned = provider
            .supports(&subject.world().key(1), &request)
            .unwrap();
        for operation in ["ensure_support", "release_support"] {
            assert_eq!(
                table.get(operation),
                Some(&!planned.is_empty()),
                "{}: {operation}",
                cloud.name
            );
        }
        assert_eq!(
            table.len(),
            REQUIRED.len() + OPTIONAL.len() + 2,
            "{}",
            cloud.name
        );
    }
}
