//! Serverless jobs: submitted once, followed to an end, every chunk once.

use std::future::poll_fn;

use atlas_core::{Capability, ErrorKind, Job, JobId, JobRef, JobRequest, JobStatus, Jobs};
use serde_json::Value;

use crate::conformance::Serverless;
use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

fn group<'a>(bench: &'a Bench<'_>, needed: Capability) -> Result<(Jobs<'a>, Serverless), Stop> {
    bench.need(needed)?;
    let jobs = bench
        .provider()
        .jobs()
        .ok_or_else(|| Stop::Failed("jobs are declared, and the group is missing".to_owned()))?;
    let serverless = bench
        .subject()
        .serverless()
        .ok_or_else(|| Stop::Skipped("control:endpoint".to_owned()))?;
    Ok((jobs, serverless))
}

fn address(job: &Job) -> JobRef {
    JobRef {
        endpoint: job.endpoint.clone(),
        id: job.id.clone(),
    }
}

async fn until_ended(bench: &Bench<'_>, jobs: &Jobs<'_>, job: &JobRef) -> Result<Job, Stop> {
    let mut patience = bench.long_patience();
    loop {
        let seen = match jobs.get_job(bench.cx(), job).await {
            Ok(seen) if seen.status.is_terminal() => return Ok(seen),
            Ok(seen) => seen.status.to_string(),
            // A fresh id may be unknown for a moment.
            Err(error) if error.kind() == ErrorKind::NotFound => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        patience.again(&format!("the job is {seen}")).await?;
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    whole == part
        || match whole {
            Value::Array(items) => items.iter().any(|item| contains(item, part)),
            Value::Object(fields) => fields.values().any(|item| contains(item, part)),
            _ => false,
        }
}

pub(super) async fn a_job_runs_to_its_output(bench: &Bench<'_>) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::Serverless)?;
    let made = jobs
        .run_job(
            bench.cx(),
            &JobRequest::new(&serverless.endpoint, serverless.echo.clone()),
        )
        .await?;
    ensure!(
        made.endpoint == serverless.endpoint && made.provider == *bench.provider().id(),
        "the job says it is of {:?}",
        made
    );
    let ended = until_ended(bench, &jobs, &address(&made)).await?;
    ensure!(
        ended.id == made.id && ended.status == JobStatus::Completed,
        "it ended as {}",
        ended.status
    );
    let output = ended.output.unwrap_or_default();
    ensure!(
        contains(&output, &serverless.echo),
        "its output is {output}"
    );
    Ok(())
}

pub(super) async fn a_job_is_cancelled(bench: &Bench<'_>) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::Serverless)?;
    let made = jobs
        .run_job(
            bench.cx(),
            &JobRequest::new(&serverless.endpoint, serverless.long),
        )
        .await?;
    let mut patience = bench.patience();
    while let Err(error) = jobs.get_job(bench.cx(), &address(&made)).await {
        ensure!(error.kind() == ErrorKind::NotFound, "a fresh job: {error}");
        patience.again(&error.to_string()).await?;
    }
    jobs.cancel_job(bench.cx(), &address(&made)).await?;
    let ended = until_ended(bench, &jobs, &address(&made)).await?;
    ensure!(
        ended.status == JobStatus::Cancelled,
        "a cancelled job ended as {}",
        ended.status
    );
    Ok(())
}

pub(super) async fn every_chunk_of_a_stream_comes_once(bench: &Bench<'_>) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::JobStreaming)?;
    let (input, count) = serverless.stream;
    let made = jobs
        .run_job(bench.cx(), &JobRequest::new(&serverless.endpoint, input))
        .await?;
    let mut stream = jobs.stream_job(bench.cx(), &address(&made)).await?;
    let mut chunks = Vec::new();
    while let Some(chunk) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        chunks.push(chunk?);
        ensure!(
            chunks.len() <= count,
            "more than {count} chunks: {chunks:?}"
        );
    }
    ensure!(
        chunks.len() == count,
        "{} of {count} chunks: {chunks:?}",
        chunks.len()
    );
    Ok(())
}

pub(super) async fn a_failing_job_says_why(bench: &Bench<'_>) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::Serverless)?;
    let (input, text) = serverless.error;
    let made = jobs
        .run_job(
            bench.cx(),
            &JobRequest::new(&serverless.endpoint, input.clone()),
        )
        .await?;
    let ended = until_ended(bench, &jobs, &address(&made)).await?;
    ensure!(
        ended.status == JobStatus::Failed,
        "it ended as {}",
        ended.status
    );
    ensure!(
        ended
            .error
            .as_ref()
            .is_some_and(|error| error.contains(&text)),
        "its error is {:?}",
        ended.error
    );
    if !bench.has(Capability::JobStreaming) {
        return Ok(());
    }
    let made = jobs
        .run_job(bench.cx(), &JobRequest::new(&serverless.endpoint, input))
        .await?;
    let mut stream = jobs.stream_job(bench.cx(), &address(&made)).await?;
    while let Some(chunk) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        if chunk.is_err() {
            return Ok(());
        }
    }
    Err(Stop::Failed(
        "the stream of a failing job ends without an error".to_owned(),
    ))
}

pub(super) async fn an_unknown_job_is_not_found(bench: &Bench<'_>) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::Serverless)?;
    let job = JobRef {
        endpoint: serverless.endpoint,
        id: JobId::new("no-such-job-0")?,
    };
    let error = jobs.get_job(bench.cx(), &job).await.err();
    ensure!(
        error.as_ref().map(|e| e.kind()) == Some(ErrorKind::NotFound),
        "a job that never was: {error:?}"
    );
    Ok(())
}

pub(super) async fn a_submit_that_committed_and_answered_500_is_unknown(
    bench: &Bench<'_>,
) -> Verdict {
    let (jobs, serverless) = group(bench, Capability::Serverless)?;
    let before = bench.control()?.requests(Some("run_job")).await;
    bench.inject("run_job", FaultKind::CommitThen500, 1).await?;
    match jobs
        .run_job(
            bench.cx(),
            &JobRequest::new(&serverless.endpoint, serverless.echo),
        )
        .await
    {
        Ok(job) => {
            return Err(Stop::Failed(format!(
                "a failed submit answered {:?}",
                job.id
            )));
        }
        Err(error) => ensure!(
            error.outcome().is_unknown(),
            "a failed submit is {:?}: {error}",
            error.outcome()
        ),
    }
    let calls = bench.control()?.requests(Some("run_job")).await - before;
    ensure!(calls == 1, "one submit made {calls} calls");
    Ok(())
}
