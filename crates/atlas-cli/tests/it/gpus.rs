//! `atlas gpus`, over every simulated cloud.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::program::{Program, Sim, ran};

fn accounts(lines: &Value) -> BTreeSet<&str> {
    lines
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| line["account"].as_str())
        .collect()
}

#[test]
fn one_table_holds_every_cloud_and_a_cloud_that_fails_is_on_it() {
    let sim = Sim::start("120");
    let atlas = Program::on_all(&sim);
    let all = atlas.run(&["gpus", "--json"]);
    let lines = all.good();
    assert_eq!(
        accounts(&lines),
        BTreeSet::from(["lambda", "mock", "runpod", "vast"]),
        "{}",
        all.err
    );
    assert!(all.err.contains("fly offers no GPUs"), "{}", all.err);
    for line in lines.as_array().unwrap() {
        assert!(
            line["vram"].is_number()
                && line["age_ms"].is_number()
                && line["provider"] == line["account"],
            "{line}"
        );
        assert!(line["failed"].is_null(), "{line}");
    }

    let broken = ran(atlas
        .command(&["gpus", "--json"])
        .env("VAST_API_KEY", "zz-canary"));
    let lines = broken.good();
    assert_eq!(
        accounts(&lines),
        BTreeSet::from(["lambda", "mock", "runpod", "vast"])
    );
    let failed: Vec<&Value> = lines
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| !line["failed"].is_null())
        .collect();
    assert_eq!(
        (failed.len(), &failed[0]["account"], &failed[0]["failed"]),
        (1, &"vast".into(), &"unauthorized".into())
    );
    assert!(
        failed[0]["error"]
            .as_str()
            .unwrap()
            .contains("unauthorized"),
        "{}",
        failed[0]
    );
    assert!(
        !broken.out.contains("zz-canary") && !broken.err.contains("zz-canary"),
        "{broken:?}"
    );

    let table = ran(atlas.command(&["gpus"]).env("VAST_API_KEY", "zz-canary"));
    let row = table.out.lines().last().unwrap();
    assert!(
        table.code == 0 && row.starts_with("failed: unauthorized") && row.contains(" vast "),
        "{}",
        table.out
    );
    assert!(
        table
            .out
            .lines()
            .any(|row| row.starts_with("h100_sxm ") && row.contains(" lambda ")),
        "{}",
        table.out
    );
}

#[test]
fn the_list_is_sorted_and_filtered_as_asked() {
    let sim = Sim::start("120");
    let atlas = Program::on_all(&sim);
    let figures = |args: &[&str], field: &str| -> Vec<String> {
        let lines = atlas.run(&[&["gpus", "--json"], args].concat()).good();
        let figures = lines
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line[field].as_str().unwrap_or("~").to_owned());
        figures.collect()
    };
    let dollars = |text: &String| text.parse::<f64>().unwrap_or(f64::MAX);
    let prices: Vec<f64> = figures(&[], "price").iter().map(dollars).collect();
    assert!(prices.len() > 10 && prices.is_sorted(), "{prices:?}");
    let names = figures(&["--sort", "name"], "gpu");
    assert!(
        names.is_sorted() && names.len() == prices.len(),
        "{names:?}"
    );
    let h100s = figures(&["--filter", "H100"], "gpu");
    assert!(
        !h100s.is_empty() && h100s.iter().all(|name| name.starts_with("h100")),
        "{h100s:?}"
    );
    let cheap = figures(&["--max-price", "1", "--provider", "lambda"], "price");
    assert!(
        !cheap.is_empty() && cheap.iter().map(dollars).all(|price| price <= 1.0),
        "{cheap:?}"
    );
    assert_eq!(atlas.run(&["gpus", "--max-price", "cheap"]).code, 2);
}

#[test]
fn when_no_cloud_answers_the_list_says_so_and_the_exit_code_is_1() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let broken = ran(atlas
        .command(&["gpus", "--json"])
        .env("RUNPOD_API_KEY", "zz-canary"));
    assert_eq!(
        (broken.code, &broken.json()[0]["failed"]),
        (1, &"unauthorized".into()),
        "{broken:?}"
    );
    assert!(
        broken.err.contains("no price list from runpod"),
        "{broken:?}"
    );
    assert_eq!(Program::new().run(&["gpus"]).code, 2);
}
