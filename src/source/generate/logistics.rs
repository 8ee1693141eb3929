//! Trucks on the road, the data of the logistics example.

use std::io::Write;

use rand::RngExt;

use super::Random;
use super::text::{Fields, IsoDate, iso_millis};

const TRUCKS: u64 = 400;
const PERMITS: u64 = 1200;
const SITES: [&str; 6] = ["Arden", "Brook", "Calder", "Dunmore", "Elm Hill", "Ford"];
const DAY_US: i64 = 86_400_000_000;
const MINUTE_US: i64 = 60_000_000;

fn truck(permit: u64) -> u64 {
    permit % TRUCKS
}

/// All permits of a truck are of one class, so that its tickets fit whichever permit is valid.
fn max_gross_kg(truck: u64) -> u64 {
    [36_000, 40_000, 44_000][(truck % 3) as usize]
}

pub(super) fn ticket(id: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, f: &mut Fields<'_>) {
    let permit = random.random_range(0..PERMITS);
    let truck = truck(permit);
    // About one in twenty is overloaded.
    let share = 0.55 + 0.45 * random.random::<f64>().sqrt() + if random.random_bool(0.05) { 0.1 } else { 0.0 };
    let gross_kg = (max_gross_kg(truck) as f64 * share / 20.0) as u64 * 20; // scales show steps of 20 kg
    write!(key, "\"T{truck:04}\"").expect("writing to memory does not fail");
    f.plain("ticket_id", format_args!("{id}"));
    f.text("site", SITES[random.random_range(0..SITES.len())]);
    f.quoted("truck", format_args!("T{truck:04}"));
    f.quoted("permit_no", format_args!("P{permit:06}"));
    f.plain("gross_kg", format_args!("{gross_kg}"));
    f.quoted("weighed_at", format_args!("{}", iso_millis(us)));
}

pub(super) fn permit(id: u64, version: u64, us: i64, _random: &mut Random, key: &mut Vec<u8>, f: &mut Fields<'_>) {
    let truck = truck(id);
    // A later version of a permit is an extension.
    let extended_days = if version > id { (version % 4) as i64 * 30 } else { 0 };
    write!(key, "\"P{id:06}\"").expect("writing to memory does not fail");
    f.quoted("permit_no", format_args!("P{id:06}"));
    f.quoted("truck", format_args!("T{truck:04}"));
    f.plain("max_gross_kg", format_args!("{}", max_gross_kg(truck)));
    f.quoted("valid_from", format_args!("{}", IsoDate(us - 180 * DAY_US)));
    f.quoted(
        "valid_to",
        format_args!("{}", IsoDate(us + (180 + extended_days) * DAY_US)),
    );
}

pub(super) fn trip(id: u64, _version: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, f: &mut Fields<'_>) {
    // The places depend only on the trip's id, so that a correction changes nothing but how long the trip took.
    let (origin, step) = ((id % 6) as usize, 1 + (id / 6 % 5) as usize);
    let minutes =
        25.0 * step as f64 * (0.7 + random.random::<f64>() + if random.random_bool(0.05) { 2.0 } else { 0.0 });
    let took_us = (minutes * MINUTE_US as f64) as i64;
    write!(key, "{id}").expect("writing to memory does not fail");
    f.plain("trip_id", format_args!("{id}"));
    f.quoted("truck", format_args!("T{:04}", id.wrapping_mul(31) % TRUCKS));
    f.text("origin", SITES[origin]);
    f.text("destination", SITES[(origin + step) % SITES.len()]);
    f.quoted("started_at", format_args!("{}", iso_millis(us - took_us)));
    f.quoted("ended_at", format_args!("{}", iso_millis(us)));
}
