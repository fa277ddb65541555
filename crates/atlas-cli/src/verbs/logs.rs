//! `atlas logs`: what a session's machine printed.

use atlas::{CallContext, LogQuery, SessionId};

use crate::failure::{Done, Failure};
use crate::keeper::Keeper;
use crate::output::Output;
use crate::setup::Setup;
use crate::verbs::next;

pub(crate) async fn run(
    keeper: &mut Keeper,
    setup: &Setup,
    session: SessionId,
    tail: Option<u32>,
    follow: bool,
    out: Output,
) -> Done {
    let info = keeper.info(session).await?.info;
    let machine = info
        .compute
        .ok_or_else(|| Failure::new(format!("session {session} has no machine now")))?;
    let provider = setup.provider(&info.account)?;
    let mut query = LogQuery::default().follow(follow);
    query.tail = tail;
    let mut lines = provider
        .logs(&CallContext::new(), &machine.id, &query)
        .await?;
    while let Some(line) = next(&mut lines).await {
        let line = line?;
        out.item(&line, || line.text.clone())?;
    }
    Ok(())
}
