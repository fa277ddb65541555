//! CPU presets and their prices. Fly's API has no prices: every figure is an estimate by the
//! published formula (docs/clouds/fly.md).

use atlas_core::{Usd, UsdPerHour};

/// The kinds of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Shared,
    Performance,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Performance => "performance",
        }
    }

    const fn counts(self) -> &'static [u32] {
        match self {
            Self::Shared => &[1, 2, 4, 6, 8],
            // Fly's client has up to 16; the price list ends at 8, so nothing larger is offered.
            Self::Performance => &[1, 2, 4, 6, 8],
        }
    }

    /// The minimum and maximum memory per CPU, in MB.
    const fn memory(self) -> (u32, u32) {
        match self {
            Self::Shared => (256, 2048),
            Self::Performance => (2048, 8192),
        }
    }

    /// The price of a CPU for thirty days, in thousandths of a dollar.
    const fn milli_dollars(self) -> i128 {
        match self {
            Self::Shared => 695,
            Self::Performance => 21_000,
        }
    }
}

/// The price of a gigabyte of memory for thirty days, in thousandths of a dollar.
const MEMORY_MILLI_DOLLARS: i128 = 5_000;
const HOURS: i128 = 720;
/// The step of memory sizes, in MB.
const STEP: u32 = 256;

/// Regions and their markups, in ten-thousandths, cheapest first.
pub(crate) const MARKUPS: &[(&str, i128)] = &[
    ("iad", 10_000),
    ("ewr", 10_000),
    ("ams", 10_385),
    ("arn", 10_385),
    ("bom", 10_769),
    ("yyz", 11_154),
    ("lhr", 11_346),
    ("cdg", 11_346),
    ("fra", 11_538),
    ("sjc", 11_923),
    ("lax", 11_995),
    ("ord", 12_500),
    ("dfw", 12_500),
    ("sin", 12_692),
    ("syd", 12_692),
    ("jnb", 13_029),
    ("nrt", 13_077),
    ("gru", 16_154),
];
/// Names of groups of regions, which a create accepts as a region: Fly chooses one of the group.
const GROUPS: [&str; 7] = ["any", "apac", "eu", "na", "sa", "us", "usa"];
/// The markup for a region that the table lacks: the highest, so that the estimate is never too
/// low.
const DEAREST: i128 = 16_154;
/// The maximum size of an ordinary machine's root filesystem, in GB; Fly does not report the real
/// size.
const LARGEST_ROOTFS: i64 = 8;
/// The price of a gigabyte of root filesystem for thirty days, in cents.
const ROOTFS_CENTS: i64 = 15;

/// The price of a gigabyte of a volume for thirty days, in cents.
const VOLUME_CENTS: i64 = 15;

/// A guest: the CPUs and memory of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preset {
    pub(crate) kind: Kind,
    pub(crate) cpus: u32,
    pub(crate) memory_mb: u32,
}

impl Preset {
    /// The smallest preset of this kind with at least this many CPUs and this much memory.
    pub(crate) fn fitting(kind: Kind, cpus: u32, memory_mb: u32) -> Option<Self> {
        let (least, most) = kind.memory();
        let count = kind
            .counts()
            .iter()
            .copied()
            .find(|count| *count >= cpus && count * most >= memory_mb)?;
        let memory_mb = memory_mb.max(count * least).div_ceil(STEP) * STEP;
        Some(Self {
            kind,
            cpus: count,
            memory_mb,
        })
    }

    /// The preset that a machine reports.
    pub(crate) fn of(
        cpu_kind: Option<&str>,
        cpus: Option<u32>,
        memory_mb: Option<u32>,
    ) -> Option<Self> {
        let kind = match cpu_kind? {
            "shared" => Kind::Shared,
            "performance" => Kind::Performance,
            _ => return None,
        };
        Some(Self {
            kind,
            cpus: cpus?,
            memory_mb: memory_mb?,
        })
    }

    /// The name used by Fly's own tools: `shared-cpu-2x`.
    pub(crate) fn name(self) -> String {
        format!(
            "{}-{}x",
            if self.kind == Kind::Shared {
                "shared-cpu"
            } else {
                "performance"
            },
            self.cpus
        )
    }

    /// The name and the memory, as in a candidate: `shared-cpu-2x:1024`.
    pub(crate) fn native(self) -> String {
        format!("{}:{}", self.name(), self.memory_mb)
    }

    /// Parses the output of [`Preset::native`], or only a name, with the preset's default memory.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, memory) = text
            .split_once(':')
            .map_or((text, None), |(name, memory)| (name, Some(memory)));
        let (kind, cpus) = match name.strip_prefix("shared-cpu-") {
            Some(rest) => (Kind::Shared, rest),
            None => (Kind::Performance, name.strip_prefix("performance-")?),
        };
        let cpus = cpus
            .strip_suffix('x')?
            .parse()
            .ok()
            .filter(|cpus| kind.counts().contains(cpus))?;
        let (least, most) = kind.memory();
        let memory_mb = match memory {
            Some(memory) => memory.parse().ok()?,
            None => least * cpus,
        };
        let fits =
            (least * cpus..=most * cpus).contains(&memory_mb) && memory_mb.is_multiple_of(STEP);
        fits.then_some(Self {
            kind,
            cpus,
            memory_mb,
        })
    }

    /// The estimated price in a region while it runs.
    pub(crate) fn price(self, region: &str) -> UsdPerHour {
        let markup = MARKUPS
            .iter()
            .find(|(code, _)| *code == region)
            .map_or(DEAREST, |(_, markup)| *markup);
        let milli_by_1024 = self.kind.milli_dollars() * i128::from(self.cpus) * 1024
            + MEMORY_MILLI_DOLLARS * i128::from(self.memory_mb);
        let nanos = (milli_by_1024 * markup * 1_000_000).div_euclid(1024 * 10_000 * HOURS);
        UsdPerHour::new(Usd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)))
    }

    /// Only machines with little memory can be suspended.
    pub(crate) const fn can_be_suspended(self) -> bool {
        self.memory_mb <= 2048
    }
}

/// The maximum price of a stopped machine: its root filesystem continues to bill.
pub(crate) fn stopped() -> UsdPerHour {
    let hours = i64::try_from(HOURS).unwrap_or(1);
    UsdPerHour::new(Usd::from_nanos(
        Usd::from_cents(ROOTFS_CENTS * LARGEST_ROOTFS).nanos() / hours,
    ))
}

/// The price of a volume of this many gigabytes, which bills whether or not a machine runs.
pub(crate) fn volume(gb: u32) -> UsdPerHour {
    let nanos = Usd::from_cents(VOLUME_CENTS * i64::from(gb)).nanos();
    UsdPerHour::new(Usd::from_nanos(nanos / i64::try_from(HOURS).unwrap_or(1)))
}

/// The sum of two prices.
pub(crate) fn together(one: UsdPerHour, other: UsdPerHour) -> UsdPerHour {
    let nanos = one
        .per_hour()
        .nanos()
        .saturating_add(other.per_hour().nanos());
    UsdPerHour::new(Usd::from_nanos(nanos))
}

/// Whether a region (or a group of them) is known to exist without a look-up.
pub(crate) fn is_known_region(region: &str) -> bool {
    MARKUPS.iter().any(|(code, _)| *code == region) || GROUPS.contains(&region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The price of thirty days, in whole cents.
    fn month(preset: &str, region: &str) -> i64 {
        let price = Preset::parse(preset).unwrap().price(region);
        price
            .cost_of(Duration::from_secs(30 * 86_400))
            .unwrap()
            .nanos()
            / 10_000_000
    }

    #[test]
    fn prices_are_those_of_the_published_table_and_an_unknown_region_is_the_dearest() {
        assert_eq!(month("shared-cpu-1x", "iad"), 194);
        assert_eq!(month("shared-cpu-1x", "lax"), 233);
        assert_eq!(month("shared-cpu-1x:1024", "iad"), 569);
        assert_eq!(month("performance-1x", "iad"), 3_099);
        assert_eq!(
            month("performance-1x", "nowhere"),
            month("performance-1x", "gru")
        );
        assert!(stopped().per_hour() > Usd::ZERO, "stopped is not free");
    }
}
