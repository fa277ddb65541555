//! `atlas fly`: what a Fly.io project holds, its deploys, its logs, and the tokens for them.

use std::env;
use std::io::Read as _;
use std::path::Path;

use atlas::Secret;
use atlas::fly_ops::{
    Acquired, AnyTokenStore, AppName, DeployError, DeployEvent, DeployOutput, DeployRequest,
    DeployTicket, FlyCli, FlyToken, LogClient, LogEntry, LogEvent, LogFilter, LogHub,
    LogHubOptions, MintScope, Pipe, RedbTokenStore, Stage, Tokens, discover_apps,
};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{FlyDeployArgs, FlyLogsArgs, FlyTokensVerb, FlyVerb, Global};
use crate::failure::{Done, Failure};
use crate::output::{self, Output};
use crate::setup::Setup;

/// The folder of the tokens, beside the store's file.
const TOKENS: &str = "fly-tokens";
/// Where to read logs instead of Fly's own API.
const LOGS_URL: &str = "ATLAS_FLY_LOGS_URL";

pub(crate) async fn run(verb: FlyVerb, global: &Global, out: Output) -> Done {
    match verb {
        FlyVerb::Apps { path, max_depth } => apps(&path, max_depth, out),
        FlyVerb::Deploy(args) => deploy(args, out).await,
        FlyVerb::Logs(args) => logs(args, global, out).await,
        FlyVerb::Tokens(verb) => tokens(verb, global, out).await,
    }
}

fn apps(path: &Path, max_depth: usize, out: Output) -> Done {
    let found = discover_apps(path, max_depth);
    for report in &found.reports {
        out.warn(format!("atlas: {report}"));
    }
    let document: Value = found
        .apps
        .iter()
        .map(|app| {
            json!({ "app": app.name.as_str(), "directory": app.directory,
            "config": app.config })
        })
        .collect();
    out.answer(&document, || {
        let rows = found.apps.iter().map(|app| {
            let region = app.primary_region.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                app.name.to_string(),
                region,
                app.directory.display().to_string(),
                app.config.display().to_string(),
            ]
        });
        output::table(&["APP", "REGION", "DIRECTORY", "CONFIG"], rows)
    })
}

async fn deploy(args: FlyDeployArgs, out: Output) -> Done {
    let mut request = DeployRequest::new(&args.path);
    request.app = args.app;
    request.arguments = args.arguments;
    request.activity_timeout = args.activity_timeout;
    request.max_timeout = args.timeout;
    let ticket = DeployTicket(format!("cli-{}", std::process::id()));
    // Before anything runs that would have to be ended.
    let mut end = End::new()?;
    let mut deployment = FlyCli::new()
        .stream_deploy(ticket, request)
        .map_err(|error| failed(&error))?;
    let (mut stages, mut lines) = (Vec::new(), 0_u64);
    let ended = loop {
        tokio::select! {
            biased;
            () = end.asked() => {
                out.progress("ending the deploy and all that it started");
                break deployment.cancel().await;
            }
            event = deployment.next() => match event {
                None => break deployment.finish().await,
                Some(DeployEvent::Line { pipe, text, .. }) => {
                    lines += 1;
                    out.progress(format!("{} {text}", if pipe == Pipe::Stderr { "!" } else {
                        "|" }));
                }
                Some(DeployEvent::Stage(stage)) => {
                    let word = word(&stage);
                    if stages.last() != Some(&word) {
                        out.heading(format!("== {word}"));
                        stages.push(word);
                    }
                }
                Some(DeployEvent::Missed(count)) => out.progress(format!("[{count} lines not \
                    shown]")),
                Some(_) => {}
            },
        }
    };
    let (error, printed) = match &ended {
        Ok(printed) => (None, Some(printed)),
        Err(error) => (Some(error), error.output()),
    };
    let code = match error {
        None => Some(0),
        Some(DeployError::ExitCode(code, _)) => *code,
        Some(_) => None,
    };
    let document = json!({
        "deployed": error.is_none(), "error": error.map(DeployError::as_str), "exit_code": code,
            "stages": stages, "lines": lines,
        "output": printed.map(DeployOutput::text),
    });
    if out.is_json() || error.is_none() {
        out.answer(&document, || format!("deployed {}", args.path.display()))?;
    }
    error.map_or(Ok(()), |error| Err(failed(error)))
}

/// The ways to ask this program to end: Ctrl-C, TERM, and a terminal that was closed. None of them
/// reaches `fly`, which has a process group of its own.
struct End([Signal; 3]);

impl End {
    fn new() -> Done<Self> {
        let on = |kind| signal(kind).map_err(Failure::from);
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn failed(error: &DeployError) -> Failure {
    match error {
        DeployError::InvalidDirectory | DeployError::TokenInArguments => {
            Failure::usage(error.to_string())
        }
        DeployError::ExitCode(Some(code), _) => {
            Failure::new(format!("fly ended with exit code {code}"))
        }
        DeployError::ExitCode(None, _) => Failure::new("fly was ended by a signal"),
        _ => Failure::new(error.to_string()),
    }
}

/// What people read, and scripts.
fn word(stage: &Stage) -> String {
    match stage {
        Stage::Verify => "verify".to_owned(),
        Stage::Build => "build".to_owned(),
        Stage::Push => "push".to_owned(),
        Stage::Release => "release".to_owned(),
        Stage::Machines(None) => "machines".to_owned(),
        Stage::Machines(Some(id)) => format!("machine {id}"),
        Stage::CheckFailed => "check failed".to_owned(),
        Stage::Deployed => "deployed".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

async fn logs(args: FlyLogsArgs, global: &Global, out: Output) -> Done {
    let client = match env::var(LOGS_URL).ok().filter(|url| !url.is_empty()) {
        Some(url) => LogClient::at(chain(global)?, url),
        None => LogClient::new(chain(global)?),
    };
    let mut filter = LogFilter::all();
    (filter.region, filter.instance) = (args.region, args.instance);
    if !args.follow {
        let page = client.page(&args.app, &filter, None).await?;
        if page.skipped > 0 {
            out.warn(format!("atlas: {} entries could not be read", page.skipped));
        }
        return page.entries.iter().try_for_each(|entry| print(entry, out));
    }
    // Once, and not each time around: what comes while a line is printed is not lost.
    let mut end = End::new()?;
    let mut events =
        LogHub::new(client, LogHubOptions::default()).subscribe(&args.app, filter, None);
    loop {
        let event = tokio::select! {
            biased;
            // How a log that goes on is meant to be left.
            () = end.asked() => return Ok(()),
            event = events.next() => event,
        };
        match event {
            Some(LogEvent::Entry(entry)) => print(&entry, out)?,
            Some(LogEvent::Lagged(count)) => out.warn(format!(
                "atlas: {count} entries were dropped, this terminal was too slow"
            )),
            Some(LogEvent::Gap(kind)) => out.warn(format!(
                "atlas: reading is interrupted ({}), and goes on by itself",
                kind.as_str()
            )),
            Some(LogEvent::Stopped(Some(kind))) => {
                return Err(Failure::new(format!(
                    "the log of {} ended: {}",
                    args.app,
                    kind.as_str()
                )));
            }
            Some(LogEvent::Stopped(None)) | None => return Ok(()),
            Some(_) => {}
        }
    }
}

fn print(entry: &LogEntry, out: Output) -> Done {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let at = entry
        .timestamp
        .map_or_else(|| "-".to_owned(), |at| at.to_string());
    let head = format!(
        "{at} {} {} [{}]",
        dash(&entry.region),
        dash(&entry.instance),
        dash(&entry.level)
    );
    out.item(entry, || {
        format!("{head} {}", entry.plain_message().replace('\n', "\n    "))
    })
}

async fn tokens(verb: FlyTokensVerb, global: &Global, out: Output) -> Done {
    let chain = chain(global)?;
    match verb {
        FlyTokensVerb::Get { app, secrets } => tell(&app, &chain.get(&app).await?, secrets, out),
        FlyTokensVerb::Refresh { app, secrets } => {
            tell(&app, &chain.refresh(&app).await?, secrets, out)
        }
        FlyTokensVerb::Set { app } => {
            let text = given()?;
            let token = FlyToken::parse(text.expose().lines().next().unwrap_or_default())
                .map_err(Failure::given)?;
            chain.set_manual(&app, token).await?;
            out.answer(&json!({ "app": app.as_str(), "set": true }), || {
                format!("the token of {app} is kept")
            })
        }
        FlyTokensVerb::Revoke { app } => {
            let count = chain.revoke(&app).await?;
            out.answer(&json!({ "app": app.as_str(), "revoked": count }), || {
                format!("{count} tokens of {app} were revoked")
            })
        }
    }
}

/// Standard input, up to what a token can be.
fn given() -> Done<Secret> {
    let mut text = String::new();
    let read = std::io::stdin().take(64 * 1024).read_to_string(&mut text);
    // Whatever was read is wiped in the end.
    let text = Secret::new(text);
    read?;
    Ok(text)
}

/// Where a token came from and how long it is good; the token itself only where that was asked for.
fn tell(app: &AppName, acquired: &Acquired, secrets: bool, out: Output) -> Done {
    let token = secrets.then(|| acquired.token.joined());
    let document = json!({
        "app": app.as_str(), "source": acquired.source.as_str(), "expires_at": acquired.expires_at,
        "token": token.as_ref().map(Secret::expose),
    });
    out.answer(&document, || match &token {
        Some(token) => token.expose().to_owned(),
        None => {
            let until = acquired
                .expires_at
                .map_or_else(String::new, |end| format!(", good until {end}"));
            format!("{app} has a token from {}{until}", acquired.source.as_str())
        }
    })
}

/// The tokens of this user on this host.
fn chain(global: &Global) -> Done<Tokens> {
    let setup = Setup::new(global)?;
    let folder = setup
        .store()
        .parent()
        .unwrap_or_else(|| Path::new(""))
        .join(TOKENS);
    let store = RedbTokenStore::open(folder)?;
    let organisation = ["ATLAS_FLY_ORG", "FLY_ORG"]
        .into_iter()
        .filter_map(|name| env::var(name).ok())
        .find(|org| !org.is_empty());
    let mut builder = Tokens::builder()
        .environment(Tokens::environment_token()?)
        .store(AnyTokenStore::new(store))
        .scope(MintScope::ReadOrganisation(organisation));
    if let Some(host) = std::fs::read_to_string("/etc/hostname")
        .ok()
        .or_else(|| env::var("HOSTNAME").ok())
    {
        builder = builder.host(&host);
    }
    Ok(builder.build())
}
