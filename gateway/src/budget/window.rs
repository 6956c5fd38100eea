//! The windows of a budget: from which second to which. Pure. Days, weeks and months are a calendar's, in a tenant's
//! time zone, over its changes of the clock; minutes and hours are the same everywhere, so they are UTC's.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::config::{Every, Weekday};

/// A stretch of time in Unix seconds; `end` is the first second after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Its first second, and its name.
    pub start: i64,
    /// The first second of the next one.
    pub end: i64,
}

impl Window {
    /// All of time: for what is never given anew.
    pub const ALWAYS: Self = Self { start: 0, end: i64::MAX };

    /// Whether `now` is in it, or before it: a clock that is set back opens no window again.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> bool {
        now.as_second() < self.end
    }

    /// When it ends; `None` for one that does not.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.end).ok()
    }
}

/// Where days begin, and weeks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The time zone.
    pub zone: TimeZone,
    /// The first day of a week.
    pub week_start: Weekday,
}

/// By how much clocks are set back, at most.
const CLOCK_CHANGE: i64 = 3_600;

/// How far the days of two time zones are apart, at most, and a change of the clock.
const ZONES_APART: i64 = 27 * 3_600;

impl Calendar {
    /// The one of what has no zone of its own.
    #[must_use]
    pub const fn utc() -> Self {
        Self { zone: TimeZone::UTC, week_start: Weekday::Monday }
    }

    /// The window around `now`.
    #[must_use]
    pub fn window(&self, every: Every, now: Timestamp) -> Window {
        match every {
            Every::Minute => even(60, now),
            Every::Hour => even(3600, now),
            Every::Day | Every::Week | Every::Month => self.of_days(every, now).unwrap_or_else(|| even(86_400, now)),
        }
    }

    /// Whether what was used in a window that began at `start`, by whatever calendar, counts in this `window` of this
    /// one: all of it where the two overlap, so that a change of the time zone, or of the first day of a week, forgets
    /// nothing that is to count. Of a week or a month that only reaches over by what time zones differ nothing counts:
    /// that is a part of a day, and all of the others would be too much.
    #[must_use]
    pub fn counts_in(&self, every: Every, start: i64, window: Window) -> bool {
        let Ok(first) = Timestamp::from_second(start) else { return false };
        let own = self.window(every, first);
        if own.start == start {
            return own == window;
        }
        let common = start.saturating_add(usual_length(every, start)).min(window.end) - start.max(window.start);
        let passed_over = match every {
            Every::Minute | Every::Hour | Every::Day => 0,
            Every::Week | Every::Month => ZONES_APART,
        };
        common > passed_over
    }

    /// `None` only where the calendar ends: in the year 9999.
    fn of_days(&self, every: Every, now: Timestamp) -> Option<Window> {
        let today = now.to_zoned(self.zone.clone()).date();
        let first = match every {
            Every::Week => today.checked_sub(self.days_into_week(today).days()).ok()?,
            Every::Month => today.first_of_month(),
            Every::Minute | Every::Hour | Every::Day => today,
        };
        let length = match every {
            Every::Week => 1.week(),
            Every::Month => 1.month(),
            Every::Minute | Every::Hour | Every::Day => 1.day(),
        };
        Some(Window { start: self.start_of(first)?, end: self.start_of(first.checked_add(length).ok()?)? })
    }

    fn days_into_week(&self, day: Date) -> i64 {
        let first = match self.week_start {
            Weekday::Monday => jiff::civil::Weekday::Monday,
            Weekday::Tuesday => jiff::civil::Weekday::Tuesday,
            Weekday::Wednesday => jiff::civil::Weekday::Wednesday,
            Weekday::Thursday => jiff::civil::Weekday::Thursday,
            Weekday::Friday => jiff::civil::Weekday::Friday,
            Weekday::Saturday => jiff::civil::Weekday::Saturday,
            Weekday::Sunday => jiff::civil::Weekday::Sunday,
        };
        i64::from(day.weekday().since(first))
    }

    /// The first second of a day: midnight, or where the clock jumps over midnight, the first one after it.
    fn start_of(&self, day: Date) -> Option<i64> {
        let midnight = day.to_zoned(self.zone.clone()).ok()?;
        Some(midnight.timestamp().as_second())
    }
}

/// How long a window is that began at `start`, by whatever calendar, where its clock may have been set back meanwhile.
fn usual_length(every: Every, start: i64) -> i64 {
    let half = match every {
        Every::Minute => 30,
        Every::Hour => 1_800,
        Every::Day => 43_200,
        Every::Week => 302_400,
        Every::Month => 14 * 86_400,
    };
    let middle = Timestamp::from_second(start.saturating_add(half)).unwrap_or(Timestamp::MAX);
    let alike = Calendar::utc().window(every, middle);
    alike.end - alike.start + CLOCK_CHANGE
}

fn even(length: i64, now: Timestamp) -> Window {
    let start = now.as_second().div_euclid(length) * length;
    Window { start, end: start + length }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    /// Zones whose clocks jump in the night, at midnight, by half an hour, by a day, southern ones, and none at all.
    const ZONES: &[&str] = &[
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "America/Havana",
        "Asia/Beirut",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kolkata",
        "Africa/Cairo",
        "UTC",
    ];

    fn calendar(zone: &str, week_start: Weekday) -> Calendar {
        Calendar { zone: TimeZone::get(zone).unwrap(), week_start }
    }

    fn window(zone: &str, every: Every, now: &str) -> (String, String, i64) {
        let calendar = calendar(zone, Weekday::Monday);
        let window = calendar.window(every, now.parse().unwrap());
        let local = |second| {
            let zoned = Timestamp::from_second(second).unwrap().to_zoned(calendar.zone.clone());
            zoned.strftime("%F %H:%M").to_string()
        };
        (local(window.start), local(window.end), (window.end - window.start) / 3600)
    }

    fn expected(start: &str, end: &str, hours: i64) -> (String, String, i64) {
        (start.to_owned(), end.to_owned(), hours)
    }

    #[test]
    fn a_day_over_a_change_of_the_clock_is_an_hour_shorter_or_longer() {
        let spring = window("Europe/Berlin", Every::Day, "2026-03-29T12:00:00Z");
        assert_eq!(spring, expected("2026-03-29 00:00", "2026-03-30 00:00", 23));
        let autumn = window("Europe/Berlin", Every::Day, "2026-10-25T12:00:00Z");
        assert_eq!(autumn, expected("2026-10-25 00:00", "2026-10-26 00:00", 25));
        let spring = window("America/New_York", Every::Day, "2026-03-08T12:00:00Z");
        assert_eq!(spring, expected("2026-03-08 00:00", "2026-03-09 00:00", 23));
        let autumn = window("America/New_York", Every::Day, "2026-11-01T12:00:00Z");
        assert_eq!(autumn, expected("2026-11-01 00:00", "2026-11-02 00:00", 25));
    }

    #[test]
    fn a_day_without_a_midnight_begins_at_its_first_moment() {
        let spring = window("America/Sao_Paulo", Every::Day, "2018-11-04T12:00:00Z");
        assert_eq!(spring, expected("2018-11-04 01:00", "2018-11-05 00:00", 23));
        let spring = window("Africa/Cairo", Every::Day, "2024-04-26T12:00:00Z");
        assert_eq!(spring, expected("2024-04-26 01:00", "2024-04-27 00:00", 23));
    }

    #[test]
    fn weeks_and_months_begin_at_local_midnight() {
        let week = window("Europe/Berlin", Every::Week, "2026-03-29T23:30:00Z");
        assert_eq!(week, expected("2026-03-30 00:00", "2026-04-06 00:00", 7 * 24));
        let month = window("Europe/Berlin", Every::Month, "2026-10-31T23:30:00Z");
        assert_eq!(month, expected("2026-11-01 00:00", "2026-12-01 00:00", 30 * 24));
        let month = window("Europe/Berlin", Every::Month, "2026-03-01T00:00:00Z");
        assert_eq!(month, expected("2026-03-01 00:00", "2026-04-01 00:00", 31 * 24 - 1));
    }

    #[test]
    fn a_window_that_began_ends_though_the_clock_is_set_back() {
        let window = Window { start: 100, end: 200 };
        assert!(window.lasts(Timestamp::from_second(50).unwrap()));
        assert!(window.lasts(Timestamp::from_second(199).unwrap()));
        assert!(!window.lasts(Timestamp::from_second(200).unwrap()));
        assert_eq!(Window::ALWAYS.ends_at(), None);
    }

    fn instants() -> impl Strategy<Value = Timestamp> {
        // 1990 to 2050, and a few days around known changes.
        let any = (631_152_000_i64..2_524_608_000).prop_map(|second| Timestamp::from_second(second).unwrap());
        let near = prop::sample::select(vec![1_774_746_000_i64, 1_792_890_000, 1_541_300_400, 1_325_239_200]);
        prop_oneof![any, (near, -200_000_i64..200_000).prop_map(|(at, off)| Timestamp::from_second(at + off).unwrap())]
    }

    proptest! {
        /// Windows tile time: every moment is in exactly one, and where one ends the next begins.
        #[test]
        fn windows_tile_time(
            zone in prop::sample::select(ZONES),
            every in prop::sample::select(Every::ALL),
            week_start in prop::sample::select(Weekday::ALL),
            now in instants(),
        ) {
            let calendar = calendar(zone, week_start);
            let window = calendar.window(every, now);
            prop_assert!(window.start <= now.as_second() && now.as_second() < window.end);
            let of = |second| calendar.window(every, Timestamp::from_second(second).unwrap());
            prop_assert_eq!(of(window.start), window);
            prop_assert_eq!(of(window.end - 1), window);
            prop_assert_eq!(of(window.end).start, window.end);
            prop_assert_eq!(of(window.start - 1).end, window.start);
        }

        /// A week begins on its day, a month on its first.
        #[test]
        fn a_window_begins_on_its_day(
            zone in prop::sample::select(ZONES),
            week_start in prop::sample::select(Weekday::ALL),
            now in instants(),
        ) {
            let calendar = calendar(zone, week_start);
            let day = |every| {
                let start = calendar.window(every, now).start;
                Timestamp::from_second(start).unwrap().to_zoned(calendar.zone.clone()).date()
            };
            prop_assert_eq!(day(Every::Month).day(), 1);
            // Samoa skipped a Friday: a week that should begin on it begins on the day after.
            let skipped = zone == "Pacific/Apia" && day(Every::Week) == jiff::civil::date(2011, 12, 31);
            prop_assert!(skipped || calendar.days_into_week(day(Every::Week)) == 0);
        }
    }
}
