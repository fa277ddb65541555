//! The orchestrator's process of the demo: opens the store, answers at its socket, and ends when it
//! is told to.
//!
//! It is an ordinary program over the facade, with an ordinary configuration file. Nothing in it
//! knows that it will be killed.

use std::time::Duration;

use atlas::{AccountName, AnyProvider, Fly, Lambda, Shutdown, Vast};
use atlas_http::Pace;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::PATIENCE;
use crate::failure::{Done, Failure};
use crate::output::Output;
use crate::setup::Setup;

/// The word that ends every machine; the end of standard input hands over.
pub(super) const TERMINATE_ALL: &str = "terminate_all";

/// A second of a real cloud's pace.
const SECOND: Duration = Duration::from_millis(1000 / super::SPEED_UP);

pub(crate) async fn run(setup: &Setup, out: Output) -> Done {
    let account = setup.account()?;
    let provider = hurried(setup, &account)?;
    let atlas = setup.open_with(vec![(account, provider)]).await?;
    out.line(&json!({"ready": true}).to_string())?;
    let told = BufReader::new(tokio::io::stdin())
        .lines()
        .next_line()
        .await?;
    let how = match told.as_deref() {
        Some(TERMINATE_ALL) => Shutdown::TerminateAll { wait: PATIENCE },
        _ => Shutdown::Handover,
    };
    let report = atlas.shutdown(how).await?;
    out.line(&json!(report).to_string())
}

/// A cloud's provider, with the paces that the cloud is known to want in the demo's time: no
/// configuration file says those.
fn hurried(setup: &Setup, account: &AccountName) -> Done<AnyProvider> {
    let provider = setup.provider(account)?;
    let limits = provider.limits();
    let environment = |name: &str| std::env::var(name).ok();
    let provider = match account.as_str() {
        "fly" => {
            let pace = Pace::every(SECOND).burst(3);
            Fly::builder()
                .limits(limits)
                .paces(pace, pace)
                .environment(environment)
                .build()
                .map(AnyProvider::new)
        }
        "lambda" => {
            let pace = Pace::every(15 * SECOND);
            Lambda::builder()
                .limits(limits)
                .launch_pace(pace)
                .environment(environment)
                .build()
                .map(AnyProvider::new)
        }
        "vast" => Vast::builder()
            .limits(limits)
            .endpoint_paces(false)
            .environment(environment)
            .build()
            .map(AnyProvider::new),
        _ => Ok(provider),
    };
    provider.map_err(Failure::from)
}
