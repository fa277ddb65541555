//! The orchestrator's process of the demo: opens the store, answers at its socket, and ends when it
//! is told to.
//!
//! It is an ordinary program over the facade, with an ordinary configuration file. Nothing in it
//! knows that it will be killed.

use atlas::Shutdown;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::PATIENCE;
use crate::failure::Done;
use crate::output::Output;
use crate::setup::Setup;

/// The word that ends every machine; the end of standard input hands over.
pub(super) const TERMINATE_ALL: &str = "terminate_all";

pub(crate) async fn run(setup: &Setup, out: Output) -> Done {
    let account = setup.account()?;
    // No configuration file says how fast a cloud's time runs, and so which paces it wants.
    let provider = setup.provider_at(&account, super::SPEED_UP)?;
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
