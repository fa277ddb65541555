//! What was spent, in buckets of time. It lags: the last minutes are not there yet.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{Timestamp, Usd, UsdPerHour};
use http::{Response, StatusCode};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan};
use serde_json::{Map, Value, json};

use super::clusters::membership;
use super::pods::dollars;
use super::problem::{Problem, json as answer};
use super::stock::NAME;
use super::{Call, RunPod};
use crate::dialect::SimBody;

/// Accounts are charged every five minutes or so (docs/clouds/runpod.md).
const LAG: Duration = Duration::from_secs(300);
/// Buckets are not followed further back than this.
const MOST_BUCKETS: usize = 10_000;

/// Whose spend is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Billing {
    All,
    Pods,
    Serverless,
    Endpoints,
    Volumes,
    Clusters,
}

/// Amounts by field, in the order of the fields.
type Amounts = BTreeMap<&'static str, Usd>;

/// One thing that costs: its id, and what it cost between two simulated instants.
type Payer<'a> = (String, Box<dyn Fn(Timestamp, Timestamp) -> Amounts + 'a>);

impl Billing {
    /// The field that names a record's subject, the query parameter of the same name, and the count
    /// of them.
    const fn subject(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Pods => Some(("podId", "uniquePodCount")),
            Self::Serverless => Some(("serverlessId", "uniqueServerlessCount")),
            Self::Volumes => Some(("networkVolumeId", "uniqueNetworkVolumeCount")),
            Self::Clusters => Some(("clusterId", "uniqueClusterCount")),
            Self::All | Self::Endpoints => None,
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &["gpuAmount", "cpuAmount", "diskAmount"],
            Self::Serverless => &["gpuAmount", "cpuAmount", "diskAmount", "feeAmount"],
            Self::Endpoints => &[],
            Self::Volumes => &["standardAmount", "highPerformanceAmount"],
            Self::Clusters => &["gpuAmount", "diskAmount", "networkingAmount"],
            Self::All => &[
                "podGpuAmount",
                "podCpuAmount",
                "podDiskAmount",
                "serverlessGpuAmount",
                "serverlessCpuAmount",
                "serverlessDiskAmount",
                "serverlessFeeAmount",
                "storageStandardAmount",
                "storageHighPerformanceAmount",
                "endpointAmount",
                "clusterGpuAmount",
                "clusterDiskAmount",
                "clusterNetworkingAmount",
            ],
        }
    }
}

impl RunPod {
    pub(super) fn billing(
        &self,
        call: &Call<'_>,
        billing: Billing,
    ) -> Result<Response<SimBody>, Problem> {
        let size = Bucket::read(call.query.get("bucketSize"))?;
        let (start, end) = self.window(call, size)?;
        let clock = self.world.clock();
        let ripe = self.world.now().saturating_sub(LAG);
        let payers = self.payers(call, billing);
        let only = billing
            .subject()
            .and_then(|(field, _)| call.query.get(field));
        let mut records = Vec::new();
        let mut totals = Amounts::new();
        let mut paying: Vec<&str> = Vec::new();
        let mut from = start;
        for _ in 0..MOST_BUCKETS {
            if from >= end {
                break;
            }
            let to = size.next(from);
            let (sim_from, sim_to) = (
                clock.off_the_wire(core(from)),
                clock.off_the_wire(core(to)).min(ripe),
            );
            let mut whole = Amounts::new();
            for (id, spent) in payers
                .iter()
                .filter(|(id, _)| only.is_none_or(|only| only == id))
            {
                let amounts = spent(sim_from, sim_to);
                if amounts.values().all(|amount| *amount == Usd::ZERO) {
                    continue;
                }
                for (field, amount) in &amounts {
                    *totals.entry(field).or_default() =
                        totals.get(field).copied().unwrap_or_default() + *amount;
                    *whole.entry(field).or_default() =
                        whole.get(field).copied().unwrap_or_default() + *amount;
                }
                if let Some((field, _)) = billing.subject() {
                    let mut record = row(billing, &amounts, Some((from, to)));
                    record[field] = id.as_str().into();
                    records.push(record);
                    if !paying.contains(&id.as_str()) {
                        paying.push(id);
                    }
                }
            }
            if billing.subject().is_none() && !whole.is_empty() {
                records.push(row(billing, &whole, Some((from, to))));
            }
            from = to;
        }
        let mut query = json!({ "startTime": start.to_string(), "endTime": end.to_string(),
            "bucketSize": size.word() });
        let mut metadata =
            json!({ "recordCount": records.len(), "totals": row(billing, &totals, None) });
        if let Some((field, count)) = billing.subject() {
            query[field] = only.map_or(Value::Null, Value::from);
            metadata[count] = paying.len().into();
        }
        metadata["query"] = query;
        Ok(answer(
            StatusCode::OK,
            &json!({ "records": records, "metadata": metadata }),
        ))
    }

    fn payers<'a>(&'a self, call: &Call<'_>, billing: Billing) -> Vec<Payer<'a>> {
        let Some(cloud) = self.world.cloud(NAME) else {
            return Vec::new();
        };
        let (running, stopped) = (cloud.disk_running, cloud.disk_stopped);
        let is = |wanted: Billing| billing == wanted || billing == Billing::All;
        let all = billing == Billing::All;
        let mut payers: Vec<Payer<'a>> = Vec::new();
        if is(Billing::Pods) || is(Billing::Clusters) {
            for machine in self
                .world
                .all(NAME)
                .into_iter()
                .filter(|machine| machine.account == call.account.as_str())
            {
                let cluster = membership(&machine)
                    .and_then(|cluster| cluster["id"].as_str())
                    .map(str::to_owned);
                if !is(if cluster.is_some() {
                    Billing::Clusters
                } else {
                    Billing::Pods
                }) {
                    continue;
                }
                let on_cpu = machine
                    .spec
                    .extra
                    .get("cpu")
                    .and_then(Value::as_bool)
                    .unwrap_or(false);
                let fields = match (all, cluster.is_some(), on_cpu) {
                    (true, true, _) => ["clusterGpuAmount", "clusterDiskAmount"],
                    (true, false, true) => ["podCpuAmount", "podDiskAmount"],
                    (true, false, false) => ["podGpuAmount", "podDiskAmount"],
                    (false, false, true) => ["cpuAmount", "diskAmount"],
                    (false, ..) => ["gpuAmount", "diskAmount"],
                };
                let id = cluster.unwrap_or_else(|| machine.id.clone());
                payers.push((
                    id,
                    Box::new(move |from, to| spent(&machine, from, to, running, stopped, fields)),
                ));
            }
        }
        if is(Billing::Serverless) {
            for endpoint in self.world.endpoints(NAME, &call.account) {
                let field = if all {
                    "serverlessGpuAmount"
                } else {
                    "gpuAmount"
                };
                payers.push((
                    endpoint.id.clone(),
                    Box::new(move |from, to| Amounts::from([(field, endpoint.billed(from, to))])),
                ));
            }
        }
        if is(Billing::Volumes) {
            for volume in self.world.all_volumes(NAME, &call.account) {
                let field = match (all, volume.kind.as_str()) {
                    (true, "STANDARD") => "storageStandardAmount",
                    (true, _) => "storageHighPerformanceAmount",
                    (false, "STANDARD") => "standardAmount",
                    (false, _) => "highPerformanceAmount",
                };
                payers.push((
                    volume.id.clone(),
                    Box::new(move |from, to| Amounts::from([(field, volume.billed(from, to))])),
                ));
            }
        }
        payers
    }

    /// The window asked for, snapped outwards to whole buckets.
    fn window(
        &self,
        call: &Call<'_>,
        size: Bucket,
    ) -> Result<(jiff::Timestamp, jiff::Timestamp), Problem> {
        let now = wire(self.world.clock().on_the_wire(self.world.now()));
        let instant = |name: &str| match call.query.get(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map(Some)
                .map_err(|_| Problem::invalid(vec![format!("{name}: not a date-time")])),
        };
        let (start, end) = (instant("startTime")?, instant("endTime")?);
        if let Some(text) = call.query.get("lastN") {
            if start.is_some() || end.is_some() {
                return Err(Problem::bad(
                    "lastN is mutually exclusive with startTime and endTime",
                ));
            }
            let buckets: usize = text
                .parse()
                .ok()
                .filter(|n| *n >= 1)
                .ok_or_else(|| Problem::invalid(vec!["lastN: minimum: want 1".into()]))?;
            let end = size.next(size.floor(now));
            let mut start = size.floor(now);
            for _ in 1..buckets.min(MOST_BUCKETS) {
                start = size.floor(start.checked_sub(Span::new().seconds(1)).unwrap_or(start));
            }
            return Ok((start, end));
        }
        let end = end.unwrap_or(now);
        let start =
            start.unwrap_or_else(|| end.checked_sub(Span::new().hours(30 * 24)).unwrap_or(end));
        if start > end {
            return Err(Problem::bad("startTime must be before endTime"));
        }
        let floor = size.floor(end);
        Ok((
            size.floor(start),
            if floor == end { end } else { size.next(floor) },
        ))
    }
}

fn spent(
    machine: &crate::world::Machine,
    from: Timestamp,
    to: Timestamp,
    running: UsdPerHour,
    stopped: UsdPerHour,
    fields: [&'static str; 2],
) -> Amounts {
    let (compute, disk) = machine.spent(from, to, running, stopped);
    Amounts::from([(fields[0], compute), (fields[1], disk)])
}

fn row(
    billing: Billing,
    amounts: &Amounts,
    span: Option<(jiff::Timestamp, jiff::Timestamp)>,
) -> Value {
    let mut row = Map::new();
    if let Some((from, to)) = span {
        row.insert("startTime".into(), from.to_string().into());
        row.insert("endTime".into(), to.to_string().into());
    }
    row.insert(
        "totalAmount".into(),
        dollars(amounts.values().copied().sum::<Usd>().nanos()).into(),
    );
    for field in billing.fields() {
        row.insert(
            (*field).into(),
            dollars(amounts.get(field).copied().unwrap_or_default().nanos()).into(),
        );
    }
    Value::Object(row)
}

fn wire(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.unix_millis()).unwrap_or_default()
}

fn core(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(at.as_millisecond())
}

/// The length of a bucket of time, in UTC.
#[derive(Clone, Copy, Debug)]
enum Bucket {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Bucket {
    fn read(text: Option<&str>) -> Result<Self, Problem> {
        Ok(match text {
            Some("hour") => Self::Hour,
            None | Some("day") => Self::Day,
            Some("week") => Self::Week,
            Some("month") => Self::Month,
            Some("year") => Self::Year,
            Some(_) => {
                return Err(Problem::invalid(vec![
                    "bucketSize: value must be one of 'hour', 'day', 'week', 'month', 'year'"
                        .into(),
                ]));
            }
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The beginning of the bucket that an instant is in.
    fn floor(self, at: jiff::Timestamp) -> jiff::Timestamp {
        let date = at.to_zoned(TimeZone::UTC).date();
        let midnight = |date: Date| {
            date.to_zoned(TimeZone::UTC)
                .map(|zoned| zoned.timestamp())
                .unwrap_or(at)
        };
        match self {
            Self::Hour => {
                jiff::Timestamp::from_second(at.as_second().div_euclid(3600) * 3600).unwrap_or(at)
            }
            Self::Day => midnight(date),
            Self::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                midnight(date.checked_sub(days.days()).unwrap_or(date))
            }
            Self::Month => midnight(date.first_of_month()),
            Self::Year => midnight(date.first_of_year()),
        }
    }

    /// The beginning of the bucket after the one that begins here.
    fn next(self, start: jiff::Timestamp) -> jiff::Timestamp {
        let span = match self {
            Self::Hour => 1.hour(),
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
            Self::Year => 1.year(),
        };
        start
            .to_zoned(TimeZone::UTC)
            .checked_add(span)
            .map(|zoned| zoned.timestamp())
            .unwrap_or(jiff::Timestamp::MAX)
    }
}
