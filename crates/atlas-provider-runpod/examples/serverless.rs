//! Submit a job, stream one, cancel one: on the simulated cloud, or with a key on the real one.
//!
//! ```text
//! cargo run -p atlas-sim --release -- --listen 127.0.0.1:0 --speed 10     # prints the URLs
//! RUNPOD_API_KEY=sim-key ATLAS_RUNPOD_RUNTIME_URL=http://127.0.0.1:PORT/v2 \
//!     cargo run -p atlas-provider-runpod --example serverless
//! RUNPOD_API_KEY=rpa_... cargo run -p atlas-provider-runpod --example serverless -- YOUR_ENDPOINT
//! ```
//!
//! On the real cloud each of the three jobs bills for as long as its worker runs; their limits are
//! tight.

use std::future::poll_fn;
use std::time::Duration;

use atlas_core::{AnyProvider, CallContext, Error, JobRef, JobRequest, JobStatus, Result};
use atlas_provider_runpod::RunPod;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let endpoint = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "sim-endpoint".to_owned());
    let runpod = RunPod::from_env()?;
    let provider = AnyProvider::new(runpod.clone());
    let jobs = provider
        .jobs()
        .ok_or_else(|| Error::unsupported("serverless", "this provider has no jobs"))?;
    let cx = CallContext::new();
    let job = |input: Value| {
        JobRequest::new(&endpoint, input)
            .execution_timeout(Duration::from_secs(60))
            .ttl(Duration::from_secs(600))
    };

    let health = runpod.endpoint_health(&cx, &endpoint).await?;
    println!(
        "{} jobs wait for {} idle workers",
        health.jobs.in_queue, health.workers.idle
    );

    let made = jobs
        .run_job(&cx, &job(json!({"prompt": "a red fox"})))
        .await?;
    let address = |id| JobRef {
        endpoint: endpoint.clone(),
        id,
    };
    let ended = runpod.wait_job(&cx, &address(made.id)).await?;
    println!(
        "submitted: {} with {}",
        ended.status,
        ended.output.unwrap_or_default()
    );

    let streamed = jobs.run_job(&cx, &job(json!({"stream": 3}))).await?;
    let mut chunks = jobs.stream_job(&cx, &address(streamed.id)).await?;
    while let Some(chunk) = poll_fn(|cx| chunks.as_mut().poll_next(cx)).await {
        println!("streamed: {}", chunk?);
    }

    let long = jobs.run_job(&cx, &job(json!({"sleep": 30}))).await?;
    let cancelled = jobs.cancel_job(&cx, &address(long.id)).await?;
    println!("cancelled: {}", cancelled.status == JobStatus::Cancelled);
    Ok(())
}
