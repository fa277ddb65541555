//! A machine's log: requested here, written to another host some time later, and read there without
//! our key.

use std::time::Duration;

use atlas_core::{
    BoxStream, CallContext, Error, ErrorKind, LogLine, LogQuery, LogSource, Next, Outcome, Result,
    RetryClass,
};
use atlas_http::{Call, Connection};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::client::Cloud;

/// How many times to check whether the log was written, and the waits in between.
const POLLS: u32 = 40;
const PAUSE: Duration = Duration::from_secs(1);
/// The default maximum number of lines.
const DEFAULT_TAIL: u32 = 1_000;

/// Reads both logs if none is named, the host's own first, because the lines have no time to sort
/// by.
pub(crate) async fn read(
    (cloud, connection): (&Cloud, &Connection),
    cx: &CallContext,
    id: &str,
    query: &LogQuery,
) -> Result<BoxStream<Result<LogLine>>> {
    if query.follow || query.since.is_some() {
        let what = if query.follow { "follow" } else { "since" };
        return Err(Error::unsupported(
            what,
            "vast gives one snapshot of a log, without times",
        ));
    }
    let tail = query.tail.unwrap_or(DEFAULT_TAIL);
    let sources = query
        .source
        .map_or(vec![LogSource::System, LogSource::Container], |source| {
            vec![source]
        });
    let mut lines = Vec::new();
    for source in sources {
        let mut body = json!({ "tail": tail.to_string() });
        if source == LogSource::System {
            body["daemon_logs"] = "true".into();
        }
        let url = cloud.request_logs(cx, id, &body).await?;
        let text = fetch(connection, cx, &url).await?;
        lines.extend(text.lines().map(|line| {
            Ok(LogLine {
                timestamp: None,
                source,
                text: line.to_owned(),
            })
        }));
    }
    let skip = lines
        .len()
        .saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
    Ok(Box::pin(futures_util::stream::iter(
        lines.into_iter().skip(skip),
    )))
}

/// The contents of this URL, once they were written. The client that fetches them has no key.
pub(crate) async fn fetch(connection: &Connection, cx: &CallContext, url: &str) -> Result<String> {
    let wrong = |message: &str| {
        Error::new(ErrorKind::Provider, message.to_owned())
            .outcome_is(Outcome::NotApplied(Next::SameLater))
    };
    let target: http::Uri = url
        .parse()
        .map_err(|_| wrong("the location of the result is not a URL"))?;
    let (Some(scheme), Some(authority)) = (target.scheme_str(), target.authority()) else {
        return Err(wrong("the location of the result is not a URL"));
    };
    let provider = atlas_core::ProviderId::new("vast").expect("a plain name");
    let client = connection
        .client(provider, format!("{scheme}://{authority}"))
        .api("results")
        .retries(0)
        .build()?;
    let mut patient = CallContext::new();
    if let Some(timeout) = cx.timeout() {
        patient = patient.with_timeout(timeout);
    }
    for poll in 0..POLLS {
        if poll > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let answer = client.call(&patient, request(&target)).await?;
        if answer.status().is_success() {
            return Ok(String::from_utf8_lossy(answer.bytes()).into_owned());
        }
    }
    Err(
        Error::new(ErrorKind::Unavailable, "the result was not written in time")
            .outcome_is(Outcome::NotApplied(Next::SameLater)),
    )
}

/// The path and query unchanged: each part is decoded here, because it is encoded again when sent.
fn request(target: &http::Uri) -> Call {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let segments = target
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(decoded);
    let mut call = Call::get("logs", RetryClass::Safe, segments)
        .accept("*/*")
        .accept_status(StatusCode::FORBIDDEN)
        .accept_status(StatusCode::NOT_FOUND);
    for pair in target
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        call = call.query(&decoded(name), decoded(value));
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_url_goes_out_as_it_came() {
        let text = "/s3/25417733-1.log?X-Amz-Credential=AK%2F20261121&X-Amz-Signature=a%2Bb%3D";
        let target = format!("https://results.example{text}").parse().unwrap();
        assert_eq!(request(&target).path_and_query(), text);
    }
}
