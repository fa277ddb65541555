//! The orchestrator's process of the demo: opens the store, answers at its socket, and ends when it is told to.
//!
//! It is an ordinary program over the facade, with an ordinary configuration file. Nothing in it knows that it will be killed.

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
    let atlas = setup.open().await?;
    out.line(&json!({"ready": true}).to_string())?;
    let told = BufReader::new(tokio::io::stdin()).lines().next_line().await?;
    let how = match told.as_deref() {
        Some(TERMINATE_ALL) => Shutdown::TerminateAll { wait: PATIENCE },
        _ => Shutdown::Handover,
    };
    let report = atlas.shutdown(how).await?;
    out.line(&json!(report).to_string())
}
