//! Descriptions of machines with odd fields, and rows that cannot be read: no machine of ours gets
//! lost over them, and a stranger's row takes nothing from a listing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use atlas_core::{Compute, ComputeId, ComputeStatus, LaunchKey, ListFilter};
use serde_json::{Value, json};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::conformance::subject::Rewrite;

/// The fields of a machine's descriptions, by JSON pointer, each with its value.
type Fields = BTreeMap<String, Value>;

/// Whether this field tells the id, or a part of it.
fn tells(id: &ComputeId, value: &Value) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return false,
    };
    let mut parts = id.as_str().split(['.', '/', ':']);
    text == id.as_str() || parts.any(|part| part == text)
}

/// The fields of what the cloud says of this machine, of each list only those of its first item.
fn collect(value: &Value, at: &str, fields: &mut Fields) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.replace('~', "~0").replace('/', "~1"), member))
            .collect(),
        Value::Array(items) => items
            .iter()
            .take(1)
            .map(|item| ("0".to_owned(), item))
            .collect(),
        _ => return,
    };
    for (name, member) in members {
        let pointer = format!("{at}/{name}");
        collect(member, &pointer, fields);
        fields.insert(pointer, member.clone());
    }
}

/// Every field by which a point read and a listing describe the one machine that there is.
async fn described(bench: &Bench<'_>, id: &ComputeId) -> Result<Fields, Stop> {
    let fields = Arc::new(Mutex::new(Fields::new()));
    let seen = fields.clone();
    bench.rewrite(Some(Rewrite::new(move |description| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        collect(description, "", &mut seen);
    })))?;
    bench.provider().get_compute(bench.cx(), id).await?;
    bench.list().await?;
    bench.rewrite(None)?;
    let fields = std::mem::take(&mut *fields.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(
        !fields.is_empty(),
        "no answer to a read describes a machine"
    );
    Ok(fields)
}

/// What a field may become: `null`, missing (`None`), or of another type.
fn odd(value: &Value) -> [Option<Value>; 3] {
    let other = match value {
        Value::String(_) => json!(7),
        Value::Number(number) => json!(number.to_string()),
        Value::Bool(flag) => json!(flag.to_string()),
        Value::Null => json!({ "odd": [1, null] }),
        Value::Array(_) | Value::Object(_) => json!("odd"),
    };
    [Some(Value::Null), None, Some(other)]
}

/// Replaces the field, or removes it; does nothing where there is no such field.
fn change(description: &mut Value, pointer: &str, value: Option<&Value>) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    match (description.pointer_mut(parent), value) {
        (Some(Value::Object(members)), None) => {
            members.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        (Some(Value::Array(items)), None) => {
            name.parse()
                .ok()
                .filter(|n| *n < items.len())
                .map(|n: usize| items.remove(n));
        }
        (Some(_), Some(value)) => {
            if let Some(field) = description.pointer_mut(pointer) {
                field.clone_from(value);
            }
        }
        _ => {}
    }
}

/// Whether a machine that runs reads as one that does not.
fn ended(read: &Compute) -> bool {
    matches!(
        read.status,
        ComputeStatus::Stopped | ComputeStatus::Failed | ComputeStatus::Terminated
    ) || read.preempted
        || read.exit_code.is_some()
}

pub(super) async fn an_odd_field_never_makes_a_machine_unreadable(bench: &Bench<'_>) -> Verdict {
    let (key, made) = bench.spawn(bench.request()).await?;
    let id = &made.id;
    bench.until_status(id, &ComputeStatus::Running).await?;
    bench.until_found(&key, 1).await?;
    let fields = described(bench, id).await?;
    for (pointer, honest) in fields.iter().filter(|(_, value)| !tells(id, value)) {
        for value in odd(honest) {
            let what = format!(
                "with {pointer} {}",
                value
                    .as_ref()
                    .map_or_else(|| "missing".to_owned(), Value::to_string)
            );
            let at = pointer.clone();
            bench.rewrite(Some(Rewrite::new(move |description| {
                change(description, &at, value.as_ref());
            })))?;
            let read = bench.provider().get_compute(bench.cx(), id).await;
            ensure!(
                read.as_ref()
                    .is_ok_and(|read| read.id == *id && !ended(read)),
                "{what}, a read of a running machine gives {:?}",
                read.map(|read| (read.id, read.status))
            );
            let listing = bench.list().await;
            let listing = match listing {
                Ok(listing) => listing,
                Err(Stop::Failed(error)) => {
                    return Err(Stop::Failed(format!("{what}, a listing fails: {error}")));
                }
                Err(skipped) => return Err(skipped),
            };
            let listed = listing.computes.iter().find(|listed| listed.id == *id);
            ensure!(
                listed.is_some_and(|listed| !ended(listed)),
                "{what}, a running machine is listed as {:?}",
                listed.map(|listed| &listed.status)
            );
        }
    }
    bench.rewrite(None)
}

pub(super) async fn an_unreadable_row_that_may_be_ours_makes_a_listing_incomplete(
    bench: &Bench<'_>,
) -> Verdict {
    let (key, made) = bench.spawn(bench.request()).await?;
    bench.until_found(&key, 1).await?;
    let id = made.id;
    bench.rewrite(Some(Rewrite::new(move |description| {
        for member in description
            .as_object_mut()
            .into_iter()
            .flat_map(|row| row.values_mut())
        {
            if tells(&id, member) {
                *member = Value::Null;
            }
        }
    })))?;
    let listing = bench
        .provider()
        .list_compute(&bench.once(), &ListFilter::all())
        .await;
    ensure!(
        !listing.as_ref().is_ok_and(|listing| listing.is_complete()),
        "a listing with a machine of ours whose id cannot be read is complete with {:?}",
        listing.map(|listing| listing.computes.len())
    );
    bench.rewrite(None)
}

pub(super) async fn an_unreadable_row_of_a_stranger_leaves_a_listing_complete(
    bench: &Bench<'_>,
) -> Verdict {
    let (key, ours) = bench.spawn(bench.request()).await?;
    let strangers = bench
        .spawn_as(
            &LaunchKey::untracked(),
            bench.request().name("somebody-elses"),
        )
        .await?;
    bench.until_found(&key, 1).await?;
    let mut patience = bench.patience();
    while !bench
        .list()
        .await?
        .computes
        .iter()
        .any(|listed| listed.id == strangers.id)
    {
        patience.again("the listing lacks a machine").await?;
    }
    let (id, own) = (strangers.id, ours.id.clone());
    let changed = Arc::new(AtomicBool::new(false));
    let applied = changed.clone();
    bench.rewrite(Some(Rewrite::new(move |description| {
        let Some(row) = description.as_object_mut() else {
            return;
        };
        // A member that tells a part of both ids names a place, and not a machine.
        if row
            .values()
            .any(|member| tells(&id, member) && !tells(&own, member))
        {
            for member in row.values_mut().filter(|member| !tells(&id, member)) {
                *member = json!({ "odd": [1, null] });
            }
            applied.store(true, Ordering::Relaxed);
        }
    })))?;
    let listing = bench.list().await?;
    ensure!(
        changed.load(Ordering::Relaxed),
        "no row of the listing describes the other machine"
    );
    ensure!(
        listing.is_complete() && listing.computes.iter().any(|listed| listed.id == ours.id),
        "an odd row of somebody else's: the listing is {:?} with {} machines",
        listing.completeness,
        listing.computes.len()
    );
    bench.rewrite(None)
}
