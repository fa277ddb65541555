//! What Fly rents out: CPU presets, regions, prices. Facts: docs/clouds/fly.md.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{Usd, UsdPerHour};

use crate::world::{CloudSpec, Region, Shape, Tier, Timing};

/// The name of the cloud in the world, its ledger and its faults.
pub const NAME: &str = "fly";
/// The organisation that every simulated Fly has: the account's name in the world.
pub const ORG: &str = "sim-org";
/// The initial app of that organisation, in which machines are made unless another app is named.
pub const APP: &str = "sim-app";
/// The same, as the suffix of a machine's id in the world.
const APP_SUFFIX: &str = ".sim-app";

/// A gigabyte of a stopped machine's root filesystem, for thirty days: $0.15.
const ROOTFS_PER_GB_HOUR: i64 = 150_000_000 / 720;

/// Code, name, latitude, longitude, group, markup in ten-thousandths.
pub(super) type Place = (&'static str, &'static str, f64, f64, &'static str, i64);

pub(super) const REGIONS: &[Place] = &[
    ("ams", "Amsterdam, Netherlands", 52.4, 4.9, "europe", 10_385),
    ("arn", "Stockholm, Sweden", 59.7, 17.9, "europe", 10_385),
    ("bom", "Mumbai, India", 19.1, 72.9, "asia_pacific", 10_769),
    ("cdg", "Paris, France", 48.9, 2.4, "europe", 11_346),
    (
        "dfw",
        "Dallas, Texas (US)",
        32.8,
        -97.0,
        "north_america",
        12_500,
    ),
    (
        "ewr",
        "Secaucus, NJ (US)",
        40.8,
        -74.1,
        "north_america",
        10_000,
    ),
    ("fra", "Frankfurt, Germany", 50.1, 8.7, "europe", 11_538),
    (
        "gru",
        "Sao Paulo, Brazil",
        -23.5,
        -46.6,
        "south_america",
        16_154,
    ),
    (
        "iad",
        "Ashburn, Virginia (US)",
        39.0,
        -77.5,
        "north_america",
        10_000,
    ),
    (
        "jnb",
        "Johannesburg, South Africa",
        -26.1,
        28.2,
        "africa",
        13_029,
    ),
    (
        "lax",
        "Los Angeles, California (US)",
        33.9,
        -118.4,
        "north_america",
        11_995,
    ),
    (
        "lhr",
        "London, United Kingdom",
        51.5,
        -0.5,
        "europe",
        11_346,
    ),
    ("nrt", "Tokyo, Japan", 35.8, 140.4, "asia_pacific", 13_077),
    (
        "ord",
        "Chicago, Illinois (US)",
        42.0,
        -87.9,
        "north_america",
        12_500,
    ),
    (
        "sin",
        "Singapore, Singapore",
        1.4,
        104.0,
        "asia_pacific",
        12_692,
    ),
    (
        "sjc",
        "San Jose, California (US)",
        37.4,
        -121.9,
        "north_america",
        11_923,
    ),
    (
        "syd",
        "Sydney, Australia",
        -33.9,
        151.2,
        "asia_pacific",
        12_692,
    ),
    (
        "yyz",
        "Toronto, Canada",
        43.7,
        -79.6,
        "north_america",
        11_154,
    ),
];

/// The region of a call without one: the nearest to the edge that received it.
pub(super) const NEAREST: &str = "ord";

/// The regions that a region parameter names, in order of preference; `None` for an unknown word.
pub(super) fn regions(asked: Option<&str>) -> Option<Vec<String>> {
    let all = || REGIONS.iter().map(|place| place.0.to_owned());
    let group = |name: &str| {
        REGIONS
            .iter()
            .filter(|place| place.4 == name)
            .map(|place| place.0.to_owned())
            .collect::<Vec<_>>()
    };
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Some(
            [NEAREST.to_owned()]
                .into_iter()
                .chain(all().filter(|code| code != NEAREST))
                .collect(),
        );
    };
    let mut named = Vec::new();
    for word in asked.split(',').map(str::trim) {
        match word {
            "any" => named.extend(all()),
            "na" | "us" | "usa" => named.extend(group("north_america")),
            "eu" => named.extend(group("europe")),
            "sa" => named.extend(group("south_america")),
            "apac" => named.extend(group("asia_pacific")),
            code if REGIONS.iter().any(|place| place.0 == code) => named.push(code.to_owned()),
            _ => return None,
        }
    }
    Some(named)
}

/// The guest of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) performance: bool,
    pub(super) cpus: u32,
    pub(super) memory_mb: u32,
}

const SHARED: &[u32] = &[1, 2, 4, 6, 8];
const PERFORMANCE: &[u32] = &[1, 2, 4, 6, 8, 10, 12, 14, 16];

impl Guest {
    /// Why Fly refuses it, as Fly's message.
    pub(super) fn wrong(self) -> Option<String> {
        let (counts, least, most) = if self.performance {
            (PERFORMANCE, 2048 * self.cpus, 8192 * self.cpus)
        } else {
            (SHARED, 256 * self.cpus, 2048 * self.cpus)
        };
        if !counts.contains(&self.cpus) {
            return Some(format!(
                "invalid config.guest.cpus, {} is not allowed",
                self.cpus
            ));
        }
        if !self.memory_mb.is_multiple_of(256) {
            return Some(format!(
                "invalid memory size {}; must be in 256 MiB increment",
                self.memory_mb
            ));
        }
        if self.memory_mb < least {
            return Some(format!(
                "invalid config.guest.memory_mb, minimum required {least} MiB"
            ));
        }
        (self.memory_mb > most)
            .then(|| format!("invalid config.guest.memory_mb, maximum allowed {most} MiB"))
    }

    /// The preset whose CPUs it has.
    pub(super) fn preset(self) -> String {
        format!(
            "{}-{}x",
            if self.performance {
                "performance"
            } else {
                "shared-cpu"
            },
            self.cpus
        )
    }

    /// What it costs in a region: the published table's formula, over a thirty-day month.
    pub(super) fn price(self, region: &str) -> UsdPerHour {
        let markup = REGIONS
            .iter()
            .find(|place| place.0 == region)
            .map_or(16_154, |place| place.5);
        let cpu_milli = if self.performance { 21_000 } else { 695 };
        let milli_by_1024 = i128::from(cpu_milli) * i128::from(self.cpus) * 1024
            + 5_000 * i128::from(self.memory_mb);
        let nanos = milli_by_1024 * i128::from(markup) * 1_000_000 / (1024 * 10_000 * 720);
        UsdPerHour::new(Usd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)))
    }
}

/// The cloud's specification for the world.
#[must_use]
pub fn cloud() -> CloudSpec {
    let mut cloud = CloudSpec::plain(NAME);
    cloud.regions = REGIONS
        .iter()
        .map(|place| Region {
            id: place.0.into(),
            name: place.1.into(),
        })
        .collect();
    let shared = SHARED.iter().map(|cpus| Guest {
        performance: false,
        cpus: *cpus,
        memory_mb: 256 * cpus,
    });
    let performance = PERFORMANCE.iter().map(|cpus| Guest {
        performance: true,
        cpus: *cpus,
        memory_mb: 2048 * cpus,
    });
    cloud.shapes = shared
        .chain(performance)
        .map(|guest| {
            let stock = REGIONS
                .iter()
                .map(|place| (place.0.to_owned(), 64))
                .collect();
            let tier = Tier {
                price: guest.price("iad"),
                max_count: 1,
                stock,
            };
            Shape {
                native: guest.preset(),
                name: guest.preset(),
                gpu: None,
                vram_gb: 0,
                ram_gb: guest.memory_mb.div_ceil(1024),
                tiers: BTreeMap::from([(String::new(), tier)]),
            }
        })
        .collect();
    let seconds = |from: u64, to: u64| (Duration::from_secs(from), Duration::from_secs(to));
    cloud.timing = Timing {
        provisioning: seconds(1, 3),
        starting: seconds(1, 10),
        ports: seconds(0, 0),
        warm_up: seconds(1, 5),
        destroying: seconds(1, 10),
        ..Timing::default()
    };
    cloud.visibility_bound = Duration::from_secs(30);
    cloud.disk_stopped = UsdPerHour::new(Usd::from_nanos(ROOTFS_PER_GB_HOUR));
    cloud.id_alphabet = "0123456789abcdef";
    cloud.id_len = 14;
    cloud.id_suffix = APP_SUFFIX;
    cloud
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_those_of_the_published_table() {
        let month = |performance, cpus, memory_mb, region| {
            let price = Guest {
                performance,
                cpus,
                memory_mb,
            }
            .price(region);
            price
                .cost_of(Duration::from_secs(30 * 86_400))
                .unwrap()
                .nanos()
                / 10_000_000
        };
        assert_eq!(month(false, 1, 256, "iad"), 194); // $1.94
        assert_eq!(month(false, 1, 256, "lax"), 233);
        assert_eq!(month(false, 1, 1024, "iad"), 569);
        assert_eq!(month(true, 1, 2048, "iad"), 3_099);
        assert_eq!(month(true, 1, 2048, "xxx"), 5_007);
    }

    #[test]
    fn a_group_of_regions_and_a_list_name_regions_in_order() {
        assert_eq!(regions(Some("fra, ams")).unwrap(), ["fra", "ams"]);
        assert_eq!(regions(Some("sa")).unwrap(), ["gru"]);
        assert_eq!(regions(None).unwrap()[0], NEAREST);
        assert_eq!(
            (regions(Some("mad")), regions(Some("any")).unwrap().len()),
            (None, 18)
        );
    }
}
