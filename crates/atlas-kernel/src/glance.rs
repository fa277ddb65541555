//! The header of a session's row: enough to load an idle session without reading the rest of the
//! row.
//!
//! A row is this header, followed by the record as JSON. A row without a header is read completely.
//! Adding a field makes a new header version; rows with an unknown version are read completely too,
//! so that version N can read the rows of N+1 and the other way round.

use std::time::Duration;

use atlas_core::{AttemptId, Timestamp};

use super::record::{Fate, SessionRecord};
use crate::session::{AttemptPhase, SessionKind, SessionState};

const MAGIC: [u8; 3] = *b"A1\x01";
const OVER: u8 = 1;
const QUIET: u8 = 2;
const NONE: i64 = i64::MIN;

/// The contents of a row's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// Nothing remains to be done for this session, ever.
    pub over: bool,
    /// The session is serving, and only its limits can end it.
    pub quiet: bool,
    /// The node that looks after the session.
    pub owner: &'a str,
    /// The account it rents from.
    pub account: &'a str,
    /// When the session was created.
    pub created_at: Timestamp,
    /// The latest activity in the record itself.
    pub own_activity: Timestamp,
    /// Its idle limit.
    pub idle_ttl: Option<Duration>,
    /// The session does not end for idleness before this time.
    pub not_idle_before: Option<Timestamp>,
    /// When the session ends in any case.
    pub ends_at: Option<Timestamp>,
    /// The attempts that have not ended, and whether each is serving.
    pub open: Vec<(AttemptId, bool)>,
}

/// Writes the header of a record's row.
pub(super) fn write(record: &SessionRecord, row: &mut Vec<u8>) {
    let flags = if record.is_over() { OVER } else { 0 } | if is_quiet(record) { QUIET } else { 0 };
    let (owner, account) = (record.owner.as_bytes(), record.account.as_str().as_bytes());
    let open: Vec<_> = record
        .attempts
        .iter()
        .filter(|a| !a.is_terminal())
        .collect();
    let (Ok(owner_len), Ok(account_len), Ok(open_len)) = (
        u8::try_from(owner.len()),
        u8::try_from(account.len()),
        u8::try_from(open.len()),
    ) else {
        return;
    };
    let millis = |at: Option<Timestamp>| at.map_or(NONE, Timestamp::unix_millis).to_le_bytes();
    let ttl = record.options.idle_ttl.map_or(NONE, |ttl| {
        i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
    });
    row.extend(MAGIC);
    let len_at = row.len();
    row.extend([0, 0, flags]);
    row.extend(millis(Some(record.created_at)));
    row.extend(millis(Some(record.own_activity())));
    row.extend(ttl.to_le_bytes());
    row.extend(millis(record.not_idle_before));
    row.extend(millis(
        record
            .options
            .max_runtime
            .map(|limit| record.created_at.saturating_add(limit)),
    ));
    row.push(owner_len);
    row.extend(owner);
    row.push(account_len);
    row.extend(account);
    row.push(open_len);
    for attempt in open {
        row.extend(attempt.id.as_bytes());
        row.push(u8::from(attempt.is_serving()));
    }
    let len = u16::try_from(row.len() - len_at)
        .unwrap_or(u16::MAX)
        .to_le_bytes();
    row[len_at..len_at + 2].copy_from_slice(&len);
}

/// The part of a row after its header: the record.
pub(super) fn body(row: &[u8]) -> &[u8] {
    match row {
        [b'A', b'1', _, low, high, ..] => {
            let len = usize::from(u16::from_le_bytes([*low, *high]));
            row.get(MAGIC.len() + len..).unwrap_or_default()
        }
        _ => row,
    }
}

/// The bytes of a row's head, which [`glance`] reads as well as the whole row; empty when it has
/// none that we understand.
pub fn head(row: &[u8]) -> &[u8] {
    let head = || {
        let rest = row.strip_prefix(&MAGIC)?;
        let len = u16::from_le_bytes(rest.first_chunk::<2>().copied()?);
        row.get(..MAGIC.len() + usize::from(len))
    };
    head().unwrap_or_default()
}

/// Reads the head of a row; `None` when it has none that we understand.
#[must_use]
pub fn glance(row: &[u8]) -> Option<Glance<'_>> {
    let mut rest = row.strip_prefix(&MAGIC)?.get(2..)?;
    let [flags] = take::<1>(&mut rest)?;
    let mut number = || take::<8>(&mut rest).map(i64::from_le_bytes);
    let (created, own, ttl, floor, ends) = (number()?, number()?, number()?, number()?, number()?);
    let owner = text(&mut rest)?;
    let account = text(&mut rest)?;
    let [open_len] = take::<1>(&mut rest)?;
    let mut open = Vec::with_capacity(open_len.into());
    for _ in 0..open_len {
        let id = AttemptId::from_bytes(take::<10>(&mut rest)?);
        open.push((id, take::<1>(&mut rest)? == [1]));
    }
    let at = |millis: i64| (millis != NONE).then(|| Timestamp::from_unix_millis(millis));
    Some(Glance {
        over: flags & OVER != 0,
        quiet: flags & QUIET != 0,
        owner,
        account,
        created_at: at(created)?,
        own_activity: at(own)?,
        idle_ttl: (ttl != NONE).then(|| Duration::from_millis(u64::try_from(ttl).unwrap_or(0))),
        not_idle_before: at(floor),
        ends_at: at(ends),
        open,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_at_checked(N)?;
    *rest = tail;
    head.try_into().ok()
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = take::<1>(rest)?;
    let (head, tail) = rest.split_at_checked(len.into())?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

fn is_quiet(record: &SessionRecord) -> bool {
    let settled = |attempt: &super::record::Attempt| {
        if attempt.is_terminal() {
            attempt.supports.iter().all(|step| step.released)
        } else {
            attempt.phase == AttemptPhase::Live
                && attempt.is_serving()
                && attempt.sighted.iter().all(|seen| seen.fate != Fate::Doomed)
        }
    };
    record.kind == SessionKind::Interactive
        && record.state() == SessionState::Ready
        && record.placing.is_none()
        && record.options.max_cost.is_none()
        && record.attempts.iter().all(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_panic_the_reader() {
        for len in 0..80 {
            for fill in [0, 1, 0x41, 0xff] {
                let mut row = MAGIC.to_vec();
                row.resize(row.len() + len, fill);
                let _ = (glance(&row), body(&row));
            }
        }
        assert_eq!(body(b"{}"), b"{}");
        assert!(glance(b"{}").is_none());
    }
}
