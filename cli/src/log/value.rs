//! Values that the command line gives: times, durations, sizes, paces.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use windlass::{Speed, Start, SyncPolicy};

/// A time in nanoseconds since 1970, as people give it.
pub fn moment(text: &str) -> Result<u64, String> {
    let expected = "expected a time such as 2026-11-21T09:30:00Z, or 10m for ten minutes ago, or \
                    @NANOSECONDS since 1970";
    if let Some(digits) = text.strip_prefix('@') {
        return digits.parse().map_err(|_| expected.to_owned());
    }
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => Some(at),
        Err(_) => {
            humantime::parse_duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago))
        }
    };
    at.and_then(since_1970).ok_or_else(|| expected.to_owned())
}

fn since_1970(at: SystemTime) -> Option<u64> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    since_1970(SystemTime::now()).unwrap_or(0)
}

/// A time as it is shown, with all of its digits.
pub fn time(ns: u64) -> String {
    humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)).to_string()
}

/// A duration that is not zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        _ => Err("expected a duration such as 500ms, 30s, 10m, 2h or 7d".to_owned()),
    }
}

/// Bytes, with a unit or without.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
    ];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text.strip_suffix('B').unwrap_or(text), 1));
    let bytes = digits.trim_end().parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("expected a number of bytes such as 1048576, 64MiB or 10GiB".to_owned()),
    }
}

/// When messages are put on disk.
pub fn sync_policy(text: &str) -> Result<SyncPolicy, String> {
    match text {
        "none" => Ok(SyncPolicy::None),
        "each" => Ok(SyncPolicy::Each),
        _ => duration(text).map(SyncPolicy::Every).map_err(|_| {
            "expected none, each, or how often: a duration such as 10ms or 1s".to_owned()
        }),
    }
}

/// How fast messages are replayed, as people give it.
pub fn speed(text: &str) -> Result<Speed, String> {
    match text {
        "recorded" => Ok(Speed::Recorded),
        "flat" => Ok(Speed::Flat),
        _ => match text.trim_end_matches(['x', '×']).parse::<f64>() {
            Ok(times) if times.is_finite() && times >= 1e-6 => Ok(Speed::Times(times)),
            _ => Err("expected recorded, flat, or a factor such as 10 or 0.5".to_owned()),
        },
    }
}

/// Where a cursor is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot(pub Start);

impl FromStr for Spot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "oldest" => Start::Oldest,
            "latest" => Start::Latest,
            _ => {
                match text.parse() {
                    Ok(sequence) => Start::Sequence(sequence),
                    Err(_) => Start::Time(moment(text).map_err(|expected| {
                        format!("{expected}; or oldest, latest, or a sequence")
                    })?),
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_so_long_ago() {
        assert_eq!(moment("@17"), Ok(17));
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(moment("1970-01-01 00:01:00"), Ok(60_000_000_000));
        assert_eq!(time(1_500_000_017), "1970-01-01T00:00:01.500000017Z");
        let ago = moment("10m").expect("a duration");
        assert!((now_ns() - ago).abs_diff(600_000_000_000) < 60_000_000_000);
        for wrong in ["", "@", "@-1", "yesterday", "1969-01-01T00:00:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_understood() {
        for ns in [0, 1, 1_795_298_400_123_456_789, u64::MAX / 2] {
            assert_eq!(moment(&time(ns)), Ok(ns));
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("10 GiB"), Ok(10 << 30));
        assert_eq!(size("2kB"), Ok(2000));
        for wrong in ["", "0", "MiB", "1.5GiB", "-1", "99999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn policies_paces_and_spots_are_words_or_numbers() {
        assert_eq!(sync_policy("10ms"), Ok(SyncPolicy::Every(Duration::from_millis(10))));
        assert!(sync_policy("0s").is_err() && sync_policy("often").is_err());
        assert_eq!(speed("2.5"), Ok(Speed::Times(2.5)));
        assert_eq!(speed("100x"), Ok(Speed::Times(100.0)));
        assert!(["0", "-1", "inf", "NaN", "fast"].iter().all(|wrong| speed(wrong).is_err()));
        assert_eq!("7".parse(), Ok(Spot(Start::Sequence(7))));
        assert_eq!("@7".parse(), Ok(Spot(Start::Time(7))));
        assert!("soon".parse::<Spot>().is_err());
    }
}
