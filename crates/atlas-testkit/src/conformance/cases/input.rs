//! Bad input: refused before any request, naming the field.

use atlas_core::{
    ComputeRequest, DiskSize, ErrorKind, Gpu, GpuChoice, LaunchKey, Next, Outcome, Port,
};
use serde_json::json;

use crate::conformance::bench::{Bench, Verdict, ensure};

pub(super) async fn bad_input_names_its_field_and_is_never_sent(bench: &Bench<'_>) -> Verdict {
    let plain = bench.request();
    let bad: Vec<(&str, ComputeRequest)> = vec![
        (
            "gpu_count",
            ComputeRequest::gpu(Gpu::H100).image("x/y:1").gpu_count(0),
        ),
        ("cpu", ComputeRequest::cpu(0).image("x/y:1")),
        ("image", plain.clone().image("two words")),
        ("image", plain.clone().image("")),
        ("ports", plain.clone().port(Port::http(0))),
        (
            "ports",
            plain.clone().port(Port::tcp(22)).port(Port::tcp(22)),
        ),
        ("env", plain.clone().env("A=B", "x")),
        ("env", plain.clone().env("A\0B", "x")),
        ("env", plain.clone().env("A", "x\0")),
        ("env", plain.clone().env("", "x")),
        ("env", plain.clone().env("ATLAS_LAUNCH_KEY", "x")),
        ("name", plain.clone().name("")),
        ("name", plain.clone().name("two\nlines")),
        ("volume_gb", plain.clone().volume(DiskSize::gb(0))),
        ("command", plain.clone().command(["a\0"])),
        ("provider_opts", plain.clone().provider_opts(json!([1]))),
        ("gpu", plain.gpu_native("")),
    ];
    let before = match bench.subject().control() {
        Some(control) => control.requests(None).await,
        None => 0,
    };
    let key = LaunchKey::Tracked(bench.key());
    for (field, request) in &bad {
        let answer = bench
            .provider()
            .spawn_compute(bench.cx(), &key, request)
            .await;
        let Err(error) = answer else {
            return Err(crate::conformance::bench::Stop::Failed(format!(
                "a bad {field} was accepted"
            )));
        };
        ensure!(
            error.kind() == ErrorKind::Validation && error.field() == Some(*field),
            "a bad {field}: {error}"
        );
        ensure!(
            *error.outcome() == Outcome::NotApplied(Next::Stop),
            "a bad {field} is {:?}",
            error.outcome()
        );
    }
    if let Some(control) = bench.subject().control() {
        let sent = control.requests(None).await - before;
        ensure!(sent == 0, "{sent} requests were sent for bad input");
    }
    Ok(())
}

trait Native {
    fn gpu_native(self, id: &str) -> ComputeRequest;
}

impl Native for ComputeRequest {
    fn gpu_native(mut self, id: &str) -> ComputeRequest {
        self.gpu = Some(GpuChoice::Native(id.to_owned()));
        self.cpu = None;
        self
    }
}

pub(super) async fn an_unknown_gpu_has_no_candidate(bench: &Bench<'_>) -> Verdict {
    let request = bench.request().gpu_native("no such card 9000");
    match bench.provider().candidates(bench.cx(), &request).await {
        Ok(candidates) => ensure!(
            candidates.is_empty(),
            "an unknown card has candidates: {candidates:?}"
        ),
        Err(error) => {
            let kind = error.kind();
            let known = matches!(
                kind,
                ErrorKind::Validation | ErrorKind::Unsupported | ErrorKind::NoCapacity
            );
            ensure!(known, "an unknown card: {error}");
        }
    }
    Ok(())
}
