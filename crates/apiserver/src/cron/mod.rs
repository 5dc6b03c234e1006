//! Schedules of CronJobs: five fields, a name such as `@daily`, or `@every 1h30m`.

mod field;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use field::Field;

/// A schedule that matches no day in so many years matches none at all.
const YEARS: i16 = 5;

/// When something happens again and again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Schedule {
    /// Whenever the clock shows it.
    Clock { minute: Field, hour: Field, day: Field, month: Field, weekday: Field },
    /// After so long.
    Every(SignedDuration),
}

impl Schedule {
    /// Reads a schedule; the error is as Kubernetes words it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fields = match text.strip_prefix('@') {
            None => text,
            Some("yearly" | "annually") => "0 0 1 1 *",
            Some("monthly") => "0 0 1 * *",
            Some("weekly") => "0 0 * * 0",
            Some("daily" | "midnight") => "0 0 * * *",
            Some("hourly") => "0 * * * *",
            Some(name) => match name.strip_prefix("every ") {
                Some(length) => {
                    let length = duration(length).ok_or_else(|| {
                        format!("failed to parse duration {text}: time: invalid duration {length:?}")
                    })?;
                    return Ok(Self::Every(length.max(SignedDuration::from_secs(1))));
                }
                None => return Err(format!("unrecognized descriptor: {text}")),
            },
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let (found, all) = (fields.len(), fields.join(" "));
            return Err(format!("expected exactly 5 fields, found {found}: [{all}]"));
        };
        Ok(Self::Clock {
            minute: Field::parse(minute, 0, 59, "")?,
            hour: Field::parse(hour, 0, 23, "")?,
            day: Field::parse(day, 1, 31, "")?,
            month: Field::parse(month, 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec")?,
            weekday: Field::parse(weekday, 0, 6, "sun mon tue wed thu fri sat")?,
        })
    }

    /// The first time after this one, by the clock of a time zone.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(length) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::from_secs(length.as_secs())).ok()
            }
            Self::Clock { .. } => self.by_clock(after, zone),
        }
    }

    fn by_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let Self::Clock { minute, hour, month, .. } = self else { return None };
        let into = after.as_second().rem_euclid(60);
        let mut at = Timestamp::from_second(after.as_second() - into + 60).ok()?.to_zoned(zone.clone());
        let last = at.year() + YEARS;
        while at.year() <= last {
            if !month.has(at.month()) {
                let first = at.date().last_of_month().tomorrow().ok()?;
                at = first.to_zoned(zone.clone()).ok()?;
            } else if !self.on(&at) {
                at = at.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?;
            } else if !hour.has(at.hour()) {
                let rest = 60 - i64::from(at.minute());
                at = at.checked_add(SignedDuration::from_mins(rest)).ok()?;
            } else if !minute.has(at.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    /// Whether it happens on this day: where both kinds of days are named, either does.
    fn on(&self, at: &Zoned) -> bool {
        let Self::Clock { day, weekday, .. } = self else { return true };
        let (of_month, of_week) = (day.has(at.day()), weekday.has(at.weekday().to_sunday_zero_offset()));
        if day.any || weekday.any { of_month && of_week } else { of_month || of_week }
    }
}

/// A length of time as Go writes it: `1h30m`, `90s`, `1.5h`.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units =
            [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, length) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += number * length;
        rest = &rest[unit.len()..];
    }
    SignedDuration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone);
        next.map_or_else(|| "never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn the_first_time_after() {
        let after = "2026-01-31T10:07:30Z";
        for (schedule, wanted) in [
            ("* * * * *", "2026-01-31T10:08:00Z"),
            ("*/15 * * * *", "2026-01-31T10:15:00Z"),
            ("5/20 * * * *", "2026-01-31T10:25:00Z"),
            ("7 10 * * *", "2026-02-01T10:07:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "never"),
            ("30 4 1,15 * FRI", "2026-02-01T04:30:00Z"),
            ("30 4 * * MON-WED", "2026-02-02T04:30:00Z"),
            ("0 0 1 jun ?", "2026-06-01T00:00:00Z"),
            ("@hourly", "2026-01-31T11:00:00Z"),
            ("@yearly", "2027-01-01T00:00:00Z"),
            ("@every 1h30m", "2026-01-31T11:37:30Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC"), wanted, "{schedule}");
        }
    }

    #[test]
    fn by_the_clock_of_the_zone() {
        let berlin = |after: &str| next("30 2 * * *", after, "Europe/Berlin");
        assert_eq!(berlin("2026-01-10T12:00:00Z"), "2026-01-11T01:30:00Z");
        assert_eq!(berlin("2026-07-10T12:00:00Z"), "2026-07-11T00:30:00Z");
        // On 29 March the clock goes from 2 to 3.
        assert_eq!(berlin("2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
    }

    #[test]
    fn what_is_no_schedule() {
        for (schedule, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("* * * * 1-2-3", "too many hyphens: 1-2-3"),
            ("* * * * */1/2", "too many slashes: */1/2"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), why, "{schedule}");
        }
    }
}
