//! Times as S3 writes them.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// As in a listing: 2026-11-28T08:30:00Z.
pub fn in_listings(time: SystemTime) -> String {
    let (days, clock) = split(time);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{clock}Z")
}

/// As in a header: Sat, 28 Nov 2026 08:30:00 GMT.
pub fn in_headers(time: SystemTime) -> String {
    let (days, clock) = split(time);
    let (year, month, day) = date(days);
    // 1970 began on a Thursday.
    let (weekday, month) = (DAYS[(days as usize + 4) % 7], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year:04} {clock} GMT")
}

/// Days since the beginning of 1970, and the time of the day.
fn split(time: SystemTime) -> (u64, String) {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let of_day = seconds % 86_400;
    (seconds / 86_400, format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60))
}

/// Year, month and day, after Hinnant's `civil_from_days`: years begin in March, so that leap days end them.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_leap_day_is_written_in_both_ways() {
        let time = UNIX_EPOCH + Duration::from_secs(951_827_696);
        assert_eq!(in_listings(time), "2000-02-29T12:34:56Z");
        assert_eq!(in_headers(time), "Tue, 29 Feb 2000 12:34:56 GMT");
        assert_eq!(in_headers(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
