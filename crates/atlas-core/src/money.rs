//! US dollars as integers. Floating-point amounts are converted where a cloud's JSON is read.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

const NANOS: i64 = 1_000_000_000;

/// US dollars, in whole nano-dollars. Written as a decimal string with nine places
/// (`"1.090000000"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(i64);

impl Usd {
    /// Zero dollars.
    pub const ZERO: Self = Self(0);

    /// Builds an amount from whole nano-dollars.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Builds an amount from whole cents.
    #[must_use]
    pub const fn from_cents(cents: i64) -> Self {
        Self(cents.saturating_mul(NANOS / 100))
    }

    /// Converts floating-point dollars from a cloud's JSON, rounded to the nearest nano-dollar.
    /// `None` for NaN, infinities and amounts beyond nine thousand million dollars.
    #[must_use]
    pub fn from_f64(dollars: f64) -> Option<Self> {
        let nanos = (dollars * 1e9).round();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to fit on the line before"
        )]
        (nanos.is_finite() && nanos.abs() < 9.0e18).then_some(Self(nanos as i64))
    }

    /// Dollars as floating point for gauges and plots, where the last digit does not matter. Do not
    /// calculate with the result.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a plot has no nano-dollars")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The amount in whole nano-dollars.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The sum, or the largest representable amount on overflow.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Sub for Usd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        write!(
            f,
            "{sign}{}.{:09}",
            nanos / NANOS.unsigned_abs(),
            nanos % NANOS.unsigned_abs()
        )
    }
}

impl FromStr for Usd {
    type Err = Error;

    /// Reads `12`, `0.5`, `-1.000000001`; more than nine decimal places are refused, not rounded.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::validation("usd", "not an amount of dollars such as 1.25");
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        whole
            .checked_mul(NANOS)
            .and_then(|n| n.checked_add(fraction))
            .map(|n| Self(sign * n))
            .ok_or_else(wrong)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A price per hour of running.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UsdPerHour(Usd);

impl UsdPerHour {
    /// A price of zero.
    pub const ZERO: Self = Self(Usd::ZERO);

    /// A price of this amount per hour.
    #[must_use]
    pub const fn new(per_hour: Usd) -> Self {
        Self(per_hour)
    }

    /// Converts floating-point dollars per hour from a cloud's JSON; see [`Usd::from_f64`].
    #[must_use]
    pub fn from_f64(dollars: f64) -> Option<Self> {
        Usd::from_f64(dollars).map(Self)
    }

    /// The price of one hour.
    #[must_use]
    pub const fn per_hour(self) -> Usd {
        self.0
    }

    /// The price of `count` items.
    #[must_use]
    pub const fn times(self, count: u32) -> Self {
        Self(Usd(self.0.0.saturating_mul(count as i64)))
    }

    /// The cost of `held`, rounded up to a nano-dollar. `None` if it does not fit.
    #[must_use]
    pub fn cost_of(self, held: Duration) -> Option<Usd> {
        const HOUR_NS: i128 = 3_600_000_000_000;
        let exact = i128::from(self.0.0).checked_mul(i128::try_from(held.as_nanos()).ok()?)?;
        let up = exact.div_euclid(HOUR_NS) + i128::from(exact.rem_euclid(HOUR_NS) != 0);
        i64::try_from(up).ok().map(Usd)
    }

    /// How long `budget` lasts at this price, rounded down; `None` if it never runs out.
    #[must_use]
    pub fn lasts(self, budget: Usd) -> Option<Duration> {
        if self.0.0 <= 0 {
            return None;
        }
        let nanos = i128::from(budget.0.max(0)) * 3_600_000_000_000 / i128::from(self.0.0);
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }
}

impl Add for UsdPerHour {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for UsdPerHour {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for UsdPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/h", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn splitting_a_lease_never_costs_less(price in 0..10_000_000_000_000_i64,
            a in 0..10_000_000_u64, b in 0..10_000_000_u64) {
            let price = UsdPerHour::new(Usd::from_nanos(price));
            let (a, b) = (Duration::from_millis(a), Duration::from_millis(b));
            let split = price.cost_of(a).zip(price.cost_of(b)).map(|(a, b)| a + b);
            prop_assert!(price.cost_of(a + b) <= split);
        }

        #[test]
        fn an_amount_reads_back_as_written(nanos: i64) {
            prop_assume!(nanos != i64::MIN);
            prop_assert_eq!(Usd::from_nanos(nanos).to_string().parse::<Usd>().unwrap(),
                Usd::from_nanos(nanos));
        }

        #[test]
        fn a_budget_is_never_exceeded_by_the_time_it_lasts(price in 1..10_000_000_000_000_i64,
            budget in 0..1_000_000_000_000_i64) {
            let (price, budget) = (UsdPerHour::new(Usd::from_nanos(price)),
                Usd::from_nanos(budget));
            prop_assert!(price.cost_of(price.lasts(budget).unwrap()).unwrap() <= budget);
        }
    }

    #[test]
    fn odd_amounts_are_refused() {
        for odd in [
            "",
            ".",
            "1.",
            ".5",
            "1e3",
            "+1",
            "1.0000000001",
            "99999999999999999999",
            "- 1",
        ] {
            assert!(odd.parse::<Usd>().is_err(), "{odd:?}");
        }
        assert_eq!(Usd::from_f64(f64::NAN), None);
        assert_eq!(Usd::from_f64(1.09), Some(Usd::from_nanos(1_090_000_000)));
    }
}
