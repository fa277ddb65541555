//! Vast's API: one function per endpoint. `translate` interprets the answers.

use atlas_core::{CallContext, Error, Result, RetryClass, Secret};
use atlas_http::lenient::{self, Rows};
use atlas_http::{Answer, Call, Client, Page, Walk, walk};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::wire::{
    Charge, Charges, Created, Found, Offer, Offers, PointRead, ResultAt, User, Verdict,
};
use crate::{error, wire};

/// The maximum page size of the list.
const PAGE: &str = "25";
/// No account has this many pages; a server that returns more is broken.
const MAX_PAGES: usize = 4_000;

/// The API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Cloud(pub(crate) Client);

/// A call of the API, whose routes end in a slash.
pub(crate) fn call<S: AsRef<str>>(
    method: Method,
    operation: &'static str,
    class: RetryClass,
    segments: impl IntoIterator<Item = S>,
) -> Call {
    let version = ["api", "v0"].map(str::to_owned).into_iter();
    Call::new(
        method,
        operation,
        class,
        version.chain(
            segments
                .into_iter()
                .map(|segment| segment.as_ref().to_owned()),
        ),
    )
    .trailing_slash()
}

/// Checks that an id is a number. Another cloud's id would match no route, and the answer would be
/// an HTML page.
fn number(id: &str) -> Result<()> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    if plain {
        Ok(())
    } else {
        Err(Error::validation(
            "compute_id",
            "is not an id of vast; its ids are numbers",
        ))
    }
}

impl Cloud {
    /// Makes a call. An answer with `success: false` is an error, whatever its status.
    pub(crate) async fn answer(&self, cx: &CallContext, call: Call) -> Result<Answer> {
        let answer = self.0.call(cx, call).await?;
        if let Ok(verdict) = serde_json::from_slice::<Verdict>(answer.bytes())
            && verdict.success == Some(false)
        {
            return Err(error::classify(answer.status().as_u16(), &verdict));
        }
        Ok(answer)
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        cx: &CallContext,
        call: Call,
    ) -> Result<T> {
        self.answer(cx, call).await?.json()
    }

    /// One search. All of them share one limit: ten a minute, and a maximum number of rows per day.
    pub(crate) async fn offers(&self, cx: &CallContext, search: &Value) -> Result<Rows<Offer>> {
        let call = call(Method::POST, "candidates", RetryClass::Safe, ["bundles"]).json(search);
        let offers = match self.json::<Offers>(cx, call).await?.offers {
            Found::Several(offers) => offers,
            Found::One(offer) => vec![Value::Object(offer)],
        };
        Ok(lenient::rows("offers", offers))
    }

    /// The call that makes a machine. `secrets` are removed from any error, because Vast echoes
    /// what it refuses.
    pub(crate) async fn create(
        &self,
        cx: &CallContext,
        ask: &str,
        body: &Value,
        secrets: Vec<Secret>,
    ) -> Result<Created> {
        let call = call(
            Method::PUT,
            "spawn_compute",
            RetryClass::Create,
            ["asks", ask],
        )
        .json(body)
        .scrub(secrets);
        self.answer(cx, call).await?.json()
    }

    /// A point read: the instance, or `null`, which means that there is none. Also returns the
    /// answer, for error messages.
    pub(crate) async fn instance(
        &self,
        cx: &CallContext,
        id: &str,
    ) -> Result<(Option<Value>, Answer)> {
        number(id)?;
        let call = call(
            Method::GET,
            "get_compute",
            RetryClass::Safe,
            ["instances", id],
        )
        .accept_status(StatusCode::NOT_FOUND);
        let answer = self.0.call(cx, call).await?;
        if let Some(gone) = error::gone(&answer) {
            return gone.map(|()| (None, answer));
        }
        let read: PointRead = answer.json()?;
        Ok((read.instances, answer))
    }

    /// Walks the instances to the last page, in order of id.
    pub(crate) async fn instances(&self, cx: &CallContext) -> Result<Walk<Value>> {
        let page = |token: Option<String>| async move {
            let call = Call::get("list_compute", RetryClass::Safe, ["api", "v1", "instances"])
                .trailing_slash()
                .query("limit", PAGE)
                .query("order_by", r#"[{"col":"id","dir":"asc"}]"#)
                .query_opt("after_token", token);
            let read: wire::Page = self.json(cx, call).await?;
            Ok(Page::at(read.instances, read.next_token))
        };
        walk(MAX_PAGES, page).await
    }

    /// Stops or starts. The text of the answer decides, whatever its status.
    pub(crate) async fn set_state(
        &self,
        cx: &CallContext,
        operation: &'static str,
        id: &str,
        state: &str,
    ) -> Result<Answer> {
        number(id)?;
        let call = call(
            Method::PUT,
            operation,
            RetryClass::Idempotent,
            ["instances", id],
        )
        .json(&json!({ "state": state }));
        self.answer(cx, call).await
    }

    /// A 404 from Vast itself about an instance is a success; one about the key is not.
    pub(crate) async fn destroy(&self, cx: &CallContext, id: &str) -> Result<()> {
        number(id)?;
        let call = call(
            Method::DELETE,
            "terminate",
            RetryClass::Idempotent,
            ["instances", id],
        )
        .accept_status(StatusCode::NOT_FOUND);
        let answer = self.0.call(cx, call).await?;
        if let Some(gone) = error::gone(&answer) {
            return gone;
        }
        match answer.json::<Verdict>()? {
            Verdict {
                success: Some(true),
                ..
            } => Ok(()),
            verdict if verdict.success == Some(false) => {
                Err(error::classify(answer.status().as_u16(), &verdict))
            }
            _ => {
                Err(answer
                    .misunderstood("the answer does not say whether the instance was destroyed"))
            }
        }
    }

    /// Changes a setting of an instance or of the account.
    pub(crate) async fn change(
        &self,
        cx: &CallContext,
        (method, operation): (Method, &'static str),
        segments: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<Value> {
        self.json(
            cx,
            call(method, operation, RetryClass::Idempotent, segments).json(body),
        )
        .await
    }

    /// Requests that a log is written; returns its future URL.
    pub(crate) async fn request_logs(
        &self,
        cx: &CallContext,
        id: &str,
        body: &Value,
    ) -> Result<String> {
        number(id)?;
        let call = call(
            Method::PUT,
            "logs",
            RetryClass::Safe,
            ["instances", "request_logs", id],
        )
        .json(body);
        Ok(self.json::<ResultAt>(cx, call).await?.result_url)
    }

    pub(crate) async fn user(&self, cx: &CallContext) -> Result<User> {
        self.json(
            cx,
            call(
                Method::GET,
                "identity",
                RetryClass::Safe,
                ["users", "current"],
            ),
        )
        .await
    }

    /// The charges for instances between two instants, in epoch seconds.
    pub(crate) async fn charges(
        &self,
        cx: &CallContext,
        from: i64,
        to: i64,
    ) -> Result<Vec<Charge>> {
        let filters = json!({ "day": { "gte": from, "lte": to }, "type": { "in": ["instance"] } })
            .to_string();
        let filters = &filters;
        let page = |token: Option<String>| async move {
            let call = call(Method::GET, "compute_spend", RetryClass::Safe, ["charges"])
                .query("select_filters", filters)
                .query("format", "table")
                .query("limit", "500")
                .query_opt("after_token", token);
            let read: Charges = self.json(cx, call).await?;
            Ok(Page::at(read.results, read.next_token))
        };
        // An incomplete sum is useless.
        walk(MAX_PAGES, page).await?.whole()
    }
}
