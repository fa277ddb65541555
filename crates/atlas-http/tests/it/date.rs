//! The dates of answers are passed to the date listener.

use std::sync::{Arc, Mutex};

use atlas_core::{CallContext, DateListener, RetryClass};
use atlas_http::Call;

use crate::cloud::{Cloud, answer_with};

#[tokio::test(start_paused = true)]
async fn the_date_of_every_answer_is_heard_also_of_a_refusal() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let cloud = Cloud::new([
        answer_with(200, &[("date", DATE)], "{}"),
        answer_with(403, &[("date", DATE)], "{}"),
        answer_with(200, &[("date", DATE), ("age", "60")], "{}"),
        answer_with(200, &[("date", "yesterday")], "{}"),
        answer_with(200, &[], "{}"),
    ]);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let listener = DateListener::new(move || {
        let heard = hears.clone();
        move |date| heard.lock().unwrap().push(date)
    });
    let cx = CallContext::new().with_extension(listener);
    for _ in 0..5 {
        let call = Call::get("get_compute", RetryClass::Safe, ["pods"]);
        let _ = cloud.client().call(&cx, call).await;
    }
    let heard: Vec<i64> = heard
        .lock()
        .unwrap()
        .iter()
        .map(|date| date.unix_seconds())
        .collect();
    assert_eq!(heard, [784_111_777, 784_111_777, 784_111_837]);
}
