//! Exact sums of money over many orders: wider than one amount, and allowed below zero.

use std::fmt;
use std::ops::{Add, Neg};
use std::str::FromStr;

use domain::{Currency, Money};
use serde_json::value::RawValue;

/// A sum in a currency's minor units. 128 bits hold 10^19 of the largest amounts there can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(i128);

impl Sum {
    /// The price of `pieces` pieces, however many.
    pub fn of(price: Money, pieces: i64) -> Self {
        Self(i128::from(price.minor()) * i128::from(pieces))
    }

    /// The sum as a JSON number with all digits of its currency: `-42.50`.
    pub fn to_json_number(self, currency: Currency) -> Box<RawValue> {
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = usize::from(currency.digits());
        // At least one digit stands before the point.
        let text = format!("{:0width$}", self.0.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = text.split_at(text.len() - digits);
        let number = if digits == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        // Digits, one point and a sign are a JSON number by construction.
        RawValue::from_string(number).unwrap_or_default()
    }
}

impl From<Money> for Sum {
    fn from(money: Money) -> Self {
        Self(i128::from(money.minor()))
    }
}

impl Add for Sum {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Neg for Sum {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

/// The stored form: minor units as decimal text.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Sum {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_prints_all_digits_of_its_currency_and_its_sign() {
        let print = |minor, code: &str| Sum(minor).to_json_number(code.parse().unwrap()).get().to_owned();
        assert_eq!(print(4250, "USD"), "42.50");
        assert_eq!(print(-5, "USD"), "-0.05");
        assert_eq!(print(0, "BHD"), "0.000");
        assert_eq!(print(42, "JPY"), "42");
        assert_eq!(print(i128::from(i64::MAX) * 2, "USD"), "184467440737095516.14");
    }

    #[test]
    fn the_largest_amounts_add_up() {
        let most = Money::from_minor(i64::MAX, "USD".parse().unwrap()).unwrap();
        let sum = Sum::of(most, i64::from(u32::MAX)) + Sum::from(most);
        assert_eq!(sum.to_string().parse(), Ok(sum));
        assert_eq!(sum + -sum, Sum::default());
    }
}
