//! The calendar of DATE and TIMESTAMP: the proleptic Gregorian calendar from year 1 to year 9999, as in every engine
//! that reads the tables.

/// 0001-01-01 00:00, in microseconds since 1970.
pub const FIRST_MOMENT: i64 = -62_135_596_800_000_000;
/// The last microsecond of 9999-12-31, in microseconds since 1970.
pub const LAST_MOMENT: i64 = 253_402_300_799_999_999;

/// The year, month and day of a day number, which counts days since 1970-01-01.
///
/// The algorithm is Howard Hinnant's civil_from_days ("chrono-Compatible Low-Level Date Algorithms"). Its years begin
/// in March.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}
