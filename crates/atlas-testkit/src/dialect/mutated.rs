//! For tests of clients: a cloud with single fields of its answers changed to unusual values, and
//! checks of what must not follow from that.
//!
//! Every answer that a provider's reads get is recorded and then repeated with each change of each
//! of its fields. Only the first rows of a long list are changed. Everything is enumerated, or
//! drawn from one seed, so every run is the same.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atlas_core::{
    AnyProvider, CallContext, Capability, Compute, ComputeId, ComputeRequest, ComputeStatus,
    Entropy, ErrorKind, ListFilter, Presence, Result, SeededEntropy, TrackedKey,
};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::SimBody;
use super::face::{CloudService, front};

/// The largest body that is read.
const MOST: usize = 8 << 20;
/// How many rows of a list are changed.
const ROWS: usize = 1;
/// How many pairs of changes are drawn for each read.
const PAIRS: usize = 60;
/// For answers that an earlier read was checked with, only every so-many-th change is repeated.
const AGAIN: usize = 25;

/// The new value of a changed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// `null`.
    Null,
    /// The field is missing.
    Absent,
    /// A meaningless word.
    Text,
    /// A number.
    Number,
    /// A negative fraction, written as text.
    NumberAsText,
    /// A number that fits no type.
    HugeNumber,
    /// A very long text.
    HugeText,
    /// A flag.
    Flag,
    /// An object with members.
    Nested,
    /// An empty list.
    EmptyList,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 10] = [
        Self::Null,
        Self::Absent,
        Self::Text,
        Self::Number,
        Self::NumberAsText,
        Self::HugeNumber,
        Self::HugeText,
        Self::Flag,
        Self::Nested,
        Self::EmptyList,
    ];

    /// Whether the new value is a usable number, possibly as text.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::NumberAsText)
    }

    fn value(self) -> Value {
        match self {
            Self::Null | Self::Absent => Value::Null,
            Self::Text => "odd".into(),
            Self::Number => 7.into(),
            Self::NumberAsText => "-0.5".into(),
            Self::HugeNumber => 1e300.into(),
            Self::HugeText => "x".repeat(5_000).into(),
            Self::Flag => true.into(),
            Self::Nested => json!({ "odd": { "odd": [1, null] } }),
            Self::EmptyList => json!([]),
        }
    }
}

/// One field of one answer, and its new value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Method and path of the request.
    pub line: String,
    /// Where the field is, as a JSON pointer.
    pub pointer: String,
    /// What it becomes.
    pub change: Change,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.line, self.pointer, self.change)
    }
}

#[derive(Debug, Default)]
struct Plan {
    recorded: Vec<Recorded>,
    cases: Vec<Case>,
}

/// An answer with its complete request.
#[derive(Clone, Debug)]
struct Recorded {
    line: String,
    asked: (String, Bytes),
    answer: Value,
}

/// A cloud whose answers are recorded and changed.
#[derive(Clone, Debug)]
pub struct Mutated<S> {
    cloud: S,
    plan: Plans,
}

/// The recorded answers and the changes, separate from the cloud. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Plans(Arc<Mutex<Plan>>);

impl Plans {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, answers are unchanged and recorded.
    fn record(&self) {
        *self.plan() = Plan::default();
    }

    /// Every change of the fields that were recorded.
    fn recorded(&self) -> BTreeSet<Case> {
        let mut cases = BTreeSet::new();
        for Recorded { line, answer, .. } in &self.plan().recorded {
            cases.extend(changes_of(line, answer));
        }
        cases
    }

    /// The recorded answer to exactly this request, changed; `None` if nothing is to be changed, or
    /// the request is new.
    fn changed(&self, line: &str, asked: &(String, Bytes)) -> Option<Response<SimBody>> {
        let plan = self.plan();
        if plan.cases.is_empty() {
            return None;
        }
        let known = plan.recorded.iter().find(|known| known.asked == *asked)?;
        let mut answer = known.answer.clone();
        for case in plan.cases.iter().filter(|case| case.line == line) {
            apply(&mut answer, case);
        }
        let mut response = Response::new(SimBody::from(answer.to_string().into_bytes()));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        Some(response)
    }

    fn change(&self, cases: &[Case]) {
        self.plan().cases = cases.to_vec();
    }
}

/// Every change of every field of an answer.
fn changes_of(line: &str, answer: &Value) -> Vec<Case> {
    let (mut fields, mut cases) = (Vec::new(), Vec::new());
    fields_of(answer, String::new(), &mut fields);
    for (pointer, is_row, value) in fields {
        // A shorter list is a valid answer of the cloud, not a malformed one.
        let odd = |change: &Change| match change {
            Change::Absent => !is_row,
            Change::EmptyList => !value.is_array(),
            _ => true,
        };
        cases.extend(Change::ALL.into_iter().filter(odd).map(|change| Case {
            line: line.to_owned(),
            pointer: pointer.clone(),
            change,
        }));
    }
    cases
}

/// A body under every change of every field, for tests that script a cloud's answers.
#[must_use]
pub fn every_change(body: &Value) -> Vec<(Case, Value)> {
    let changed = |case: Case| {
        let mut body = body.clone();
        apply(&mut body, &case);
        (case, body)
    };
    changes_of("", body).into_iter().map(changed).collect()
}

/// Every field of a body: its pointer, whether it is a row of a list, and its value.
fn fields_of<'a>(value: &'a Value, at: String, found: &mut Vec<(String, bool, &'a Value)>) {
    let mut go = |name: &str, is_row: bool, member: &'a Value| {
        let pointer = format!("{at}/{name}");
        found.push((pointer.clone(), is_row, member));
        fields_of(member, pointer, found);
    };
    match value {
        // Rows that are the members of an object.
        Value::Object(members) if members.len() > 4 && members.values().all(Value::is_object) => {
            for (name, member) in members.iter().take(ROWS) {
                go(&escaped(name), true, member);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                go(&escaped(name), false, member);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().take(ROWS).enumerate() {
                go(&index.to_string(), true, item);
            }
        }
        _ => {}
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn apply(body: &mut Value, case: &Case) {
    let Some((parent, name)) = case.pointer.rsplit_once('/') else {
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match body.pointer_mut(parent) {
        Some(Value::Object(members)) if case.change == Change::Absent => {
            members.remove(&name);
        }
        Some(Value::Object(members)) if members.contains_key(&name) => {
            members.insert(name, case.change.value());
        }
        Some(Value::Array(items)) => {
            let index = name.parse().unwrap_or(usize::MAX);
            if case.change == Change::Absent && index < items.len() {
                items.remove(index);
            } else if let Some(item) = items.get_mut(index) {
                *item = case.change.value();
            }
        }
        _ => {}
    }
}

impl<S> Mutated<S> {
    /// This cloud.
    pub fn new(cloud: S) -> Self {
        Self {
            cloud,
            plan: Plans::default(),
        }
    }

    /// Its recorded answers and changes.
    pub fn plans(&self) -> Plans {
        self.plan.clone()
    }
}

impl<S: CloudService> Mutated<S> {
    async fn pass(self, parts: Parts, body: Bytes) -> io::Result<Response<SimBody>> {
        let line = format!("{} {}", parts.method, parts.uri.path());
        let asked = (parts.uri.to_string(), body.clone());
        if let Some(changed) = self.plan.changed(&line, &asked) {
            return Ok(changed);
        }
        let answer = self
            .cloud
            .oneshot(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (parts, body) = answer.into_parts();
        let bytes = body
            .collect()
            .await
            .map_err(|_| io::ErrorKind::ConnectionReset)?
            .to_bytes();
        if let (true, Ok(answer)) = (parts.status.is_success(), serde_json::from_slice(&bytes)) {
            self.plan.plan().recorded.push(Recorded {
                line,
                asked,
                answer,
            });
        }
        Ok(Response::from_parts(parts, SimBody::from(bytes.to_vec())))
    }
}

front!(Mutated<S>);

/// The provider under test, with what it reads.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The provider, over a [`Mutated`] cloud that answers at once.
    pub provider: AnyProvider,
    /// The context of its calls.
    pub context: CallContext,
    /// Machines of ours that run, each with its key.
    pub ours: Vec<(ComputeId, TrackedKey)>,
    /// A request that fits several offers.
    pub request: ComputeRequest,
    /// The prefix of JSON pointers to a machine in a listing: `/instances/`.
    pub rows: &'static str,
    /// The answers in which `null` in this field means that there is no such machine.
    pub absence: Option<&'static str>,
}

/// Numbers of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Different fields of different answers.
    pub fields: usize,
    /// Changes of one field.
    pub single: usize,
    /// Changes of two fields at once.
    pub pairs: usize,
}

/// An operation that reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Listing,
    Machine,
    Offers,
    Prices,
}

impl Read {
    const ALL: [Self; 4] = [Self::Listing, Self::Machine, Self::Offers, Self::Prices];
}

/// Runs all reads under every change of one field, and under pairs of them, and reports what must
/// not happen: a machine of ours that is lost, or reported as ended; a row that hides others; a
/// permanent refusal because of a malformed answer.
pub async fn violations(plans: &Plans, subject: &Subject) -> (Counts, Vec<String>) {
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    let dice = SeededEntropy::new(7);
    let draw = |end: usize| {
        let entropy: &dyn Entropy = &dice;
        usize::try_from(entropy.next_u64() % end.max(1) as u64).unwrap_or(0)
    };
    let mut known = BTreeSet::new();
    for read in Read::ALL {
        plans.record();
        check(read, subject, &[], &mut wrong).await;
        let mut nth = 0;
        let mut new = |case: &Case| {
            nth += 1;
            !known.contains(&case.line) || nth % AGAIN == 0
        };
        let cases: Vec<Case> = plans
            .recorded()
            .into_iter()
            .filter(|case| new(case))
            .collect();
        known.extend(cases.iter().map(|case| case.line.clone()));
        let fields: BTreeSet<_> = cases
            .iter()
            .map(|case| (&case.line, &case.pointer))
            .collect();
        counts.fields += fields.len();
        counts.single += cases.len();
        for case in &cases {
            let case = std::slice::from_ref(case);
            plans.change(case);
            check(read, subject, case, &mut wrong).await;
        }
        for _ in 0..PAIRS.min(cases.len()) {
            let pair = [
                cases[draw(cases.len())].clone(),
                cases[draw(cases.len())].clone(),
            ];
            counts.pairs += 1;
            plans.change(&pair);
            check(read, subject, &pair, &mut wrong).await;
        }
    }
    plans.record();
    (counts, wrong)
}

/// Makes one read honestly, with `None`, and then under every change of every field of its answers,
/// and hands each result over for judgement. Returns how many changes there were.
pub async fn under_every_change<T, F>(
    plans: &Plans,
    read: impl Fn() -> F,
    mut judge: impl FnMut(Option<&Case>, Result<T>),
) -> usize
where
    F: Future<Output = Result<T>>,
{
    plans.record();
    judge(None, read().await);
    let cases = plans.recorded();
    for case in &cases {
        plans.change(std::slice::from_ref(case));
        judge(Some(case), read().await);
    }
    plans.record();
    cases.len()
}

/// Running, or in a state that is not an end.
fn lives(status: &ComputeStatus) -> bool {
    matches!(
        status,
        ComputeStatus::Running | ComputeStatus::Provisioning | ComputeStatus::Other(_)
    )
}

/// Whether a running machine is read as not running.
fn ended(own: &Compute) -> bool {
    !lives(&own.status) || own.preempted || own.exit_code.is_some()
}

/// Makes a read, and reports what is wrong. Without cases the cloud is honest, and everything is
/// found.
async fn check(read: Read, subject: &Subject, cases: &[Case], wrong: &mut Vec<String>) {
    let (provider, cx) = (&subject.provider, &subject.context);
    let what: Vec<String> = cases.iter().map(Case::to_string).collect();
    let what = what.join(" + ");
    let honest = cases.is_empty();
    let mut tell = |verdict: String| wrong.push(format!("{verdict}: {what}"));
    match read {
        Read::Listing => match provider.list_compute(cx, &ListFilter::all()).await {
            Ok(listed) => {
                for (id, key) in &subject.ours {
                    let own = listed.computes.iter().find(|compute| compute.id == *id);
                    // A machine whose id was changed is still recognised by its key.
                    let keyed = listed.computes.iter().any(|compute| {
                        compute.keys.name == Some(*key) || compute.keys.tag == Some(*key)
                    });
                    match own {
                        None if listed.is_complete() && !keyed => tell(format!("{id} is lost")),
                        Some(own) if ended(own) => {
                            tell(format!("{id} is listed as {}", own.status));
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => {
                let in_row = |case: &Case| case.pointer.starts_with(subject.rows);
                if honest || cases.iter().all(in_row) {
                    tell(format!("a row hides the listing: {error}"));
                } else if error.kind() != ErrorKind::Provider {
                    tell(format!("listing: {error}"));
                }
            }
        },
        Read::Machine => {
            let says_gone = |case: &Case| {
                subject.absence == Some(case.pointer.as_str()) && case.change == Change::Null
            };
            let Some((id, _)) = subject.ours.first() else {
                return;
            };
            if cases.iter().any(says_gone) {
                return;
            }
            match provider.get_compute(cx, id).await {
                Ok(own) if own.id != *id => tell(format!("{id} reads as {}", own.id)),
                Ok(own) if ended(&own) => tell(format!("{id} reads as {}", own.status)),
                Err(error) if honest || error.kind() != ErrorKind::Provider => {
                    tell(format!("{id} cannot be read: {error}"));
                }
                _ => {}
            }
            if let Presence::Absent = provider.presence(cx, id).await {
                tell(format!("{id} is said to be gone"));
            }
        }
        Read::Offers => match provider.candidates(cx, &subject.request).await {
            Ok(found) if honest && found.is_empty() => tell("there are no offers".to_owned()),
            Err(error) if honest || error.kind() != ErrorKind::Provider => {
                tell(format!("offers: {error}"));
            }
            _ => {}
        },
        Read::Prices => match provider.list_gpu_types(cx).await {
            Ok(lines)
                if honest && lines.is_empty() && provider.capabilities().has(Capability::Gpu) =>
            {
                tell("there are no prices".to_owned());
            }
            Err(error) if honest || error.kind() != ErrorKind::Provider => {
                tell(format!("prices: {error}"));
            }
            _ => {}
        },
    }
}
