//! `atlas job`: serverless jobs on an endpoint of an account.

use std::io::Read;

use atlas::{
    AnyProvider, CallContext, Capability, Error, Job, JobMode, JobRef, JobRequest, JobStatus, Jobs,
};
use serde_json::Value;

use crate::args::{JobVerb, SubmitArgs};
use crate::failure::{Done, FAILED, Failure};
use crate::output::Output;
use crate::setup::Setup;
use crate::verbs::next;
use crate::view;

const MOST_INPUT: u64 = 16 * 1024 * 1024;

pub(crate) async fn run(verb: JobVerb, setup: &Setup, out: Output) -> Done {
    let account = setup.account()?;
    let provider: AnyProvider = setup.provider(&account)?;
    let missing = || {
        Error::unsupported(
            Capability::Serverless.as_str(),
            format!("account {account} has no serverless jobs"),
        )
    };
    let jobs = provider.jobs().ok_or_else(missing)?;
    let cx = CallContext::new();
    match verb {
        JobVerb::Run(args) => submit(jobs, args, out).await,
        JobVerb::Get { endpoint, job } => answer(
            &jobs.get_job(&cx, &JobRef { endpoint, id: job }).await?,
            out,
        ),
        JobVerb::Cancel { endpoint, job } => {
            let job = jobs.cancel_job(&cx, &JobRef { endpoint, id: job }).await?;
            out.answer(&job, || describe(&job))
        }
        JobVerb::Stream { endpoint, job } => stream(jobs, &JobRef { endpoint, id: job }, out).await,
    }
}

async fn submit(jobs: Jobs<'_>, args: SubmitArgs, out: Output) -> Done {
    let mode = match (args.sync, args.stream) {
        (true, _) => JobMode::Sync,
        (_, true) => JobMode::Stream,
        _ => JobMode::Async,
    };
    let mut request = JobRequest::new(args.endpoint, input(&args.input)?).mode(mode);
    request.timeout = args.timeout;
    let job = jobs.run_job(&CallContext::new(), &request).await?;
    if args.stream {
        out.progress(format!("job {} on {}", job.id, job.endpoint));
        return stream(
            jobs,
            &JobRef {
                endpoint: job.endpoint,
                id: job.id,
            },
            out,
        )
        .await;
    }
    answer(&job, out)
}

/// One chunk a line, until the job ends.
async fn stream(jobs: Jobs<'_>, job: &JobRef, out: Output) -> Done {
    let mut chunks = jobs.stream_job(&CallContext::new(), job).await?;
    while let Some(chunk) = next(&mut chunks).await {
        let chunk = chunk?;
        out.item(&chunk, || view::plain(&chunk))?;
    }
    Ok(())
}

/// A job that ended, and not well, exits 1.
fn answer(job: &Job, out: Output) -> Done {
    out.answer(job, || describe(job))?;
    if job.status.is_terminal() && job.status != JobStatus::Completed {
        Err(Failure::silent(FAILED))
    } else {
        Ok(())
    }
}

fn describe(job: &Job) -> String {
    let mut lines = vec![
        format!("job     {}", job.id),
        format!("status  {}", job.status),
    ];
    lines.extend(
        job.output
            .as_ref()
            .map(|output| format!("output  {output}")),
    );
    lines.extend(job.error.as_ref().map(|error| format!("error   {error}")));
    lines.join("\n")
}

/// The worker's input: JSON, or the file of it after `@`, or standard input for `-`.
fn input(text: &str) -> Done<Value> {
    let read = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)?,
        None if text == "-" => {
            let mut read = String::new();
            std::io::stdin()
                .take(MOST_INPUT)
                .read_to_string(&mut read)?;
            read
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&read)
        .map_err(|error| Failure::usage(format!("--input is not JSON: line {}", error.line())))
}
