//! Regions: countries, by the two letters of ISO 3166-1.

use atlas_core::{Error, Result};

/// Every country code. Which countries have hosts changes by the hour; any other code cannot have
/// one.
const COUNTRIES: &str = "\
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT \
BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH \
ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT \
HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS \
LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI \
NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG \
SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG \
UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";

/// The country of a location such as `Oslo, NO`.
pub(crate) fn of(geolocation: Option<&str>) -> Option<String> {
    let code = geolocation?.rsplit(',').next()?.trim();
    (!code.is_empty()).then(|| code.to_owned())
}

/// Whether a place is the requested one, compared without case.
pub(crate) fn is_same(own: &str, wanted: &str) -> bool {
    own.eq_ignore_ascii_case(wanted)
}

/// The code in the form that searches accept.
pub(crate) fn code(wanted: &str) -> String {
    wanted.trim().to_ascii_uppercase()
}

/// Refuses a text that is not a country code.
pub(crate) fn check(wanted: &str) -> Result<()> {
    let code = code(wanted);
    if COUNTRIES
        .split_ascii_whitespace()
        .any(|known| known == code)
    {
        return Ok(());
    }
    Err(Error::validation(
        "region_hints",
        format!(
            "{wanted:?} is not a region of vast; its regions are two-letter country codes: {}",
            COUNTRIES.replace(' ', ", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_known_in_either_case_and_anything_else_is_refused_with_the_known_ones() {
        for known in ["US", "us", "no", "Cz", "GB"] {
            assert!(check(known).is_ok(), "{known}");
        }
        for unknown in ["", "EU", "us-west-1", "Norway", "ZZ", "U", "US CA"] {
            let error = check(unknown).unwrap_err();
            assert_eq!(error.field(), Some("region_hints"), "{unknown}");
            assert!(error.message().contains("NO, NP") && error.message().contains("US"));
        }
        assert_eq!(COUNTRIES.split_ascii_whitespace().count(), 250);
        assert_eq!(of(Some("Oslo, NO")).as_deref(), Some("NO"));
        assert_eq!((of(None), of(Some("x, "))), (None, None));
        assert!(is_same("NO", "no") && !is_same("NO", "US"));
    }
}
