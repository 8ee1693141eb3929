//! A fleet of meters, the data of the devices example.

use std::io::Write;

use rand::RngExt;

use super::Random;
use super::text::{Fields, iso_millis};

const DEVICES: u64 = 1000;
const USERS: u64 = 300;

pub(super) fn telemetry(id: u64, us: i64, random: &mut Random, key: &mut Vec<u8>, f: &mut Fields<'_>) {
    let device = random.random_range(0..DEVICES);
    // The sum of a level of the device, a daily wave, and noise: a few per cent lie above 85 or below 32 degrees.
    let level = 45.0 + (device % 31) as f64;
    let wave = 8.0 * ((us.rem_euclid(86_400_000_000)) as f64 / 86_400e6 * std::f64::consts::TAU).sin();
    let noise = (random.random::<f64>() + random.random::<f64>() - 1.0) * 16.0;
    write!(key, "\"device-{device:04}\"").expect("writing to memory does not fail");
    f.quoted("device_id", format_args!("device-{device:04}"));
    f.quoted("ts", format_args!("{}", iso_millis(us)));
    f.plain("temperature", format_args!("{:.2}", level + wave + noise));
    f.plain("energy", format_args!("{:.3}", random.random::<f64>() * 4.0));
    // A device serves few users; in one of twenty readings none is signed in.
    match random.random_range(0..20u32) {
        0 => f.null("user_id"),
        n => f.plain("user_id", format_args!("{}", (device * 7 + u64::from(n % 4)) % USERS)),
    }
    f.plain("event_id", format_args!("{id}"));
}
