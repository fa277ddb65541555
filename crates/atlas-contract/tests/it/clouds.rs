//! Every cloud of the table conforms in process, calm and lagging, whatever the seed.

use atlas_contract::cloud::{CLOUDS, CloudSubject};
use atlas_testkit::conformance;

#[tokio::test(start_paused = true)]
async fn every_cloud_conforms_and_a_skip_names_a_capability_it_lacks() {
    for (cloud, seed) in CLOUDS
        .iter()
        .flat_map(|cloud| [1, 2, 3].map(|seed| (cloud, seed)))
    {
        for subject in [
            CloudSubject::new(*cloud, seed),
            CloudSubject::new(*cloud, seed).lagging(),
        ] {
            let report = conformance::run(&subject).await;
            assert_eq!(
                report.failed, 0,
                "{} with seed {seed}: {report}",
                cloud.name
            );
            assert!(
                report
                    .skips
                    .iter()
                    .all(|skip| !skip.missing_capability.starts_with("control:")),
                "{}: {report}",
                cloud.name
            );
        }
    }
}
