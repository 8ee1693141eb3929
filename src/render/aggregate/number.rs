//! Exact sums of numbers as vectors of limbs, and their rounding.
//!
//! A number is a sum of 24-bit digits, `digit * 2^(24 * position)`. A sum of numbers keeps, for each position, the sum
//! of the digits that the addends have there, as an `i64` (a limb), and never carries from one position to the next.
//! So the addition of vectors of limbs is exact, commutative and invertible:
//!
//! 1. every addend has one vector, so adding and retracting it leaves zeros, in any order;
//! 2. a position holds at least 2^39 addends before it could overflow.
//!
//! The positions of floats count from 2^-1074, the smallest positive double, those of their squares from 2^-2148.
//! Carrying happens only when a result is computed, in integers of any size, and the result is rounded once, to
//! nearest even.

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use smallvec::SmallVec;

/// The number of bits of a digit.
const BITS: u32 = 24;
const MASK: u128 = (1 << BITS) - 1;

/// The exponent of position 0 in a sum of doubles.
pub(super) const FLOAT_EXPONENT: i32 = -1074;
/// How many positions a sum of doubles can have.
pub(super) const FLOAT_POSITIONS: u32 = 2098_u32.div_ceil(BITS) + 1;
/// How many positions a sum of squares of doubles can have.
pub(super) const SQUARE_POSITIONS: u32 = (2 * 2098_u32).div_ceil(BITS) + 1;
/// How many positions a sum of 128-bit integers can have.
pub(super) const INTEGER_POSITIONS: u32 = 128_u32.div_ceil(BITS);

/// A sum while it is computed: the limbs from position `base` on.
#[derive(Clone, Default)]
pub(super) struct Limbs {
    base: u32,
    limbs: SmallVec<[i64; 5]>,
}

impl Limbs {
    /// Adds the finite `value` multiplied by `times`.
    #[inline]
    pub fn add_f64(&mut self, value: f64, times: i64) {
        if let Some((mantissa, exponent)) = decompose(value) {
            let times = if value < 0.0 { -times } else { times };
            self.add_scaled(mantissa, exponent, times);
        }
    }

    /// Adds the square of the finite `value` multiplied by `times`.
    #[inline]
    pub fn add_square(&mut self, value: f64, times: i64) {
        if let Some((mantissa, exponent)) = decompose(value) {
            let square = mantissa as u128 * mantissa as u128;
            self.add_scaled(square as u64, 2 * exponent, times);
            if square >> 64 != 0 {
                self.add_scaled((square >> 64) as u64, 2 * exponent + 64, times);
            }
        }
    }

    /// Adds the integer `value` multiplied by `times`.
    #[inline]
    pub fn add_i64(&mut self, value: i64, times: i64) {
        let times = if value < 0 { -times } else { times };
        self.add_scaled(value.unsigned_abs(), 0, times);
    }

    /// Adds the integer `value` multiplied by `times`.
    #[inline]
    pub fn add_u64(&mut self, value: u64, times: i64) {
        self.add_scaled(value, 0, times);
    }

    /// Adds the integer `value` multiplied by `times`.
    #[inline]
    pub fn add_i128(&mut self, value: i128, times: i64) {
        let times = if value < 0 { -times } else { times };
        let magnitude = value.unsigned_abs();
        self.add_scaled(magnitude as u64, 0, times);
        if magnitude >> 64 != 0 {
            self.add_scaled((magnitude >> 64) as u64, 64, times);
        }
    }

    /// Adds `times * magnitude * 2^exponent`.
    #[inline]
    fn add_scaled(&mut self, magnitude: u64, exponent: u32, times: i64) {
        let mut rest = (magnitude as u128) << (exponent % BITS);
        let mut position = exponent / BITS;
        while rest != 0 {
            let digit = (rest & MASK) as i64;
            if digit != 0 {
                let limb = self.limb(position);
                // By (2), this does not overflow below 2^39 addends.
                *limb = limb.wrapping_add(digit.wrapping_mul(times));
            }
            rest >>= BITS;
            position += 1;
        }
    }

    #[inline]
    fn limb(&mut self, position: u32) -> &mut i64 {
        if self.limbs.is_empty() {
            self.base = position;
        }
        if position < self.base {
            let missing = (self.base - position) as usize;
            self.limbs.insert_many(0, std::iter::repeat_n(0, missing));
            self.base = position;
        }
        let index = (position - self.base) as usize;
        if index >= self.limbs.len() {
            self.limbs.resize(index + 1, 0);
        }
        &mut self.limbs[index]
    }

    /// The limbs that are not zero, with their positions, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        (self.base..)
            .zip(self.limbs.iter().copied())
            .filter(|(_, limb)| *limb != 0)
    }
}

/// The mantissa without trailing zero bits, and its exponent relative to 2^-1074; `None` for zero.
#[inline]
fn decompose(value: f64) -> Option<(u64, u32)> {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as u32;
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, exponent) = match exponent {
        0 => (fraction, 0),
        _ => (fraction | 1 << 52, exponent - 1),
    };
    if mantissa == 0 {
        return None;
    }
    let zeros = mantissa.trailing_zeros();
    Some((mantissa >> zeros, exponent + zeros))
}

/// The value of limbs (positions ascending) as an integer; `None` if it, or an intermediate value, exceeds 128 bits.
pub(super) fn to_i128(entries: impl DoubleEndedIterator<Item = (u32, i64)>) -> Option<i128> {
    let mut value: i128 = 0;
    let mut at: Option<u32> = None;
    for (position, limb) in entries.rev() {
        if let Some(at) = at {
            value = shifted(value, (at - position) * BITS)?;
        }
        value = value.checked_add(limb as i128)?;
        at = Some(position);
    }
    shifted(value, at.unwrap_or(0) * BITS)
}

fn shifted(value: i128, bits: u32) -> Option<i128> {
    match value {
        0 => Some(0),
        _ if bits >= 127 => None,
        _ => value.checked_mul(1 << bits),
    }
}

/// The value of limbs (positions ascending) as an integer.
pub(super) fn to_big(entries: impl DoubleEndedIterator<Item = (u32, i64)>) -> BigInt {
    let mut value = BigInt::zero();
    let mut at: Option<u32> = None;
    for (position, limb) in entries.rev() {
        if let Some(at) = at {
            value <<= (at - position) * BITS;
        }
        value += limb;
        at = Some(position);
    }
    value << (at.unwrap_or(0) * BITS)
}

/// The double nearest to a sum of doubles, given by its limbs (positions ascending).
pub(super) fn to_f64(entries: impl DoubleEndedIterator<Item = (u32, i64)> + Clone) -> f64 {
    let Some((base, _)) = entries.clone().next() else {
        return 0.0;
    };
    let relative = entries.map(|(position, limb)| (position - base, limb));
    let exponent = FLOAT_EXPONENT + (base * BITS) as i32;
    match to_i128(relative.clone()) {
        Some(value) => {
            let magnitude = round(value.unsigned_abs(), exponent);
            if value < 0 { -magnitude } else { magnitude }
        }
        None => round_ratio(&to_big(relative), &BigInt::from(1), exponent),
    }
}

/// The double nearest to `numerator / denominator * 2^exponent`; the denominator is positive.
pub(super) fn round_ratio(numerator: &BigInt, denominator: &BigInt, exponent: i32) -> f64 {
    if numerator.is_zero() {
        return 0.0;
    }
    let (mut n, mut d) = (numerator.abs(), denominator.clone());
    // The quotient has 66 or 67 bits, more than a double's 53. Its lowest bit is set if the division leaves a
    // remainder.
    let shift = 66 - (n.bits() as i64 - d.bits() as i64);
    match shift >= 0 {
        true => n <<= shift,
        false => d <<= -shift,
    }
    let quotient = &n / &d;
    let inexact = &quotient * &d != n;
    let quotient = quotient.to_u128().expect("the shift leaves 67 bits at most") | inexact as u128;
    let magnitude = round(quotient, exponent - shift as i32);
    if numerator.is_negative() { -magnitude } else { magnitude }
}

/// The double nearest to `value * 2^exponent`, ties to even.
fn round(value: u128, exponent: i32) -> f64 {
    if value == 0 {
        return 0.0;
    }
    let top = 127 - value.leading_zeros() as i32 + exponent;
    if top > 1023 {
        return f64::INFINITY;
    }
    // The exponent of the double's last bit.
    let last = (top - 52).max(-1074);
    let dropped = last - exponent;
    if dropped <= 0 {
        // All bits are kept, so there are at most 53 of them.
        return times_power(value as f64, exponent);
    }
    if dropped > 127 {
        return 0.0;
    }
    let quotient = value >> dropped;
    let rest = value & ((1 << dropped) - 1);
    let half = 1 << (dropped - 1);
    let up = rest > half || (rest == half && quotient & 1 == 1);
    times_power((quotient + up as u128) as f64, last)
}

/// `value * 2^exponent`, which must be exact as a double, or beyond the greatest double.
fn times_power(value: f64, exponent: i32) -> f64 {
    let power = |exponent: i32| match exponent {
        ..-1022 => f64::from_bits(1 << (exponent + 1074).max(0)),
        _ => f64::from_bits(((exponent + 1023) as u64) << 52),
    };
    match exponent {
        1024.. => value * power(1023) * power(exponent - 1023),
        _ => value * power(exponent),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The exact sum as a multiple of 2^-1074, computed from the definition of a double.
    fn reference(values: &[f64]) -> BigInt {
        values
            .iter()
            .map(|x| {
                let (bits, sign) = (x.to_bits(), if *x < 0.0 { -1 } else { 1 });
                let exponent = (bits >> 52) & 0x7ff;
                let fraction = BigInt::from(bits & ((1 << 52) - 1));
                match exponent {
                    0 => fraction * sign,
                    e => ((fraction + (BigInt::from(1) << 52)) * sign) << (e - 1),
                }
            })
            .sum()
    }

    /// Whether `rounded` is the double nearest to `exact` multiples of 2^-1074, ties to even.
    fn is_nearest(rounded: f64, exact: &BigInt) -> bool {
        if rounded.is_infinite() {
            let edge = reference(&[f64::MAX]) + (BigInt::from(1) << (1023 - 53 + 1074));
            return exact.abs() >= edge && (rounded > 0.0) == exact.is_positive();
        }
        let distance = |x: f64| (reference(&[x]) - exact).abs();
        let mine = distance(rounded);
        [rounded.next_up(), rounded.next_down()]
            .into_iter()
            .filter(|x| x.is_finite())
            .all(|other| {
                let theirs = distance(other);
                mine < theirs || (mine == theirs && rounded.to_bits() & 1 == 0)
            })
    }

    fn sum(values: &[f64]) -> Limbs {
        let mut limbs = Limbs::default();
        values.iter().for_each(|x| limbs.add_f64(*x, 1));
        limbs
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i32>().prop_map(|x| x as f64 / 100.0),
            Just(f64::MAX),
            Just(f64::MIN_POSITIVE),
            Just(5e-324),
            Just(-0.0),
        ]
        .prop_filter("finite", |x| x.is_finite())
    }

    fn result(limbs: &Limbs) -> f64 {
        to_f64(limbs.entries().collect::<Vec<_>>().into_iter())
    }

    proptest! {
        #[test]
        fn a_sum_is_the_nearest_double_to_the_exact_sum(values in prop::collection::vec(any_finite(), 0..40)) {
            prop_assert!(is_nearest(result(&sum(&values)), &reference(&values)));
        }

        #[test]
        fn order_does_not_matter_and_retractions_leave_nothing(
            (values, shuffled) in prop::collection::vec(any_finite(), 0..40)
                .prop_flat_map(|v| (Just(v.clone()), Just(v).prop_shuffle()))
        ) {
            let mut limbs = sum(&values);
            prop_assert_eq!(result(&limbs).to_bits(), result(&sum(&shuffled)).to_bits());
            for x in &shuffled {
                limbs.add_f64(*x, -1);
            }
            prop_assert_eq!(limbs.entries().count(), 0);
        }

        #[test]
        fn squares_are_exact(values in prop::collection::vec(any_finite(), 0..20)) {
            let mut limbs = Limbs::default();
            values.iter().for_each(|x| limbs.add_square(*x, 1));
            let exact: BigInt = values.iter().map(|x| reference(&[*x]).pow(2)).sum();
            prop_assert_eq!(to_big(limbs.entries().collect::<Vec<_>>().into_iter()), exact);
        }

        #[test]
        fn integers_are_exact(values in prop::collection::vec(any::<i128>(), 0..20), times in -5i64..5) {
            let mut limbs = Limbs::default();
            values.iter().for_each(|x| limbs.add_i128(*x, times));
            let exact: BigInt = values.iter().map(|x| BigInt::from(*x) * times).sum();
            let entries: Vec<_> = limbs.entries().collect();
            prop_assert_eq!(&to_big(entries.clone().into_iter()), &exact);
            if let Some(small) = to_i128(entries.into_iter()) {
                prop_assert_eq!(BigInt::from(small), exact);
            }
        }
    }

    #[test]
    fn a_small_number_survives_a_great_one_that_comes_and_goes() {
        assert_eq!(result(&sum(&[1e308, 1e308, 0.1, -1e308, -1e308])), 0.1);
        assert_eq!(result(&sum(&[5e-324, f64::MAX, -f64::MAX])), 5e-324);
        assert_eq!(result(&sum(&[f64::MAX, f64::MAX])), f64::INFINITY);
    }

    #[test]
    fn ratios_round_once() {
        assert_eq!(round_ratio(&BigInt::from(1), &BigInt::from(3), 0), 1.0 / 3.0);
        assert_eq!(round_ratio(&BigInt::from(-10), &BigInt::from(7), 0), -10.0 / 7.0);
        assert_eq!(round_ratio(&BigInt::from(3), &BigInt::from(2), -1074), 1e-323);
        assert_eq!(round_ratio(&BigInt::from(1), &BigInt::from(2), -1074), 0.0);
        assert_eq!(round_ratio(&BigInt::from(1), &BigInt::from(1), 1024), f64::INFINITY);
    }
}
