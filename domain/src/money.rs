//! Exact money: an integer number of minor units and a currency (rules R15).

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

// ISO 4217 active codes by number of minor digits; two digits is the rule.
const DIGITS_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const DIGITS_2: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD \
    CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG \
    HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK \
    MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS \
    SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER ZAR ZMW ZWG";
const DIGITS_3: &str = "BHD IQD JOD KWD LYD OMR TND";
const DIGITS_4: &str = "CLF UYW";

/// Why a text is not an amount, or a sum is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidMoney {
    /// Not an ISO 4217 code in upper case.
    #[error("`{0}` is not an ISO 4217 currency code")]
    UnknownCurrency(String),
    /// Not a plain decimal number.
    #[error("`{0}` is not a decimal number")]
    NotADecimal(String),
    /// More fraction digits than the currency has.
    #[error("`{text}` has more than the {digits} fraction digits of {currency}")]
    TooPrecise {
        /// What was given.
        text: String,
        /// The currency's digits.
        digits: u8,
        /// The currency.
        currency: Currency,
    },
    /// Below zero.
    #[error("an amount must not be negative")]
    Negative,
    /// More than an `i64` of minor units.
    #[error("the amount is too large")]
    OutOfRange,
}

/// An ISO 4217 currency with the number of digits of its minor unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency {
    code: [u8; 3],
    digits: u8,
}

impl Currency {
    /// Digits after the decimal point: 2 for USD, 0 for JPY, 3 for BHD.
    pub fn digits(self) -> u8 {
        self.digits
    }

    /// The three letters.
    pub fn code(&self) -> &str {
        // The constructor only admits ASCII letters.
        str::from_utf8(&self.code).unwrap_or_default()
    }

    fn unit(self) -> i64 {
        10_i64.pow(u32::from(self.digits))
    }
}

impl FromStr for Currency {
    type Err = InvalidMoney;
    fn from_str(code: &str) -> Result<Self, InvalidMoney> {
        let unknown = || InvalidMoney::UnknownCurrency(code.to_owned());
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_length| unknown())?;
        let at = KNOWN.binary_search_by_key(&bytes, |known| known.code).map_err(|_no_place| unknown())?;
        Ok(KNOWN[at])
    }
}

/// All currencies by their code: every message names one, and every amount of it.
static KNOWN: LazyLock<Vec<Currency>> = LazyLock::new(|| {
    let lists = [(2, DIGITS_2), (0, DIGITS_0), (3, DIGITS_3), (4, DIGITS_4)];
    let codes = lists.iter().flat_map(|(digits, codes)| codes.split_ascii_whitespace().map(|code| (*digits, code)));
    let mut known: Vec<Currency> =
        codes.filter_map(|(digits, code)| Some(Currency { code: code.as_bytes().try_into().ok()?, digits })).collect();
    known.sort_unstable();
    known
});

impl TryFrom<String> for Currency {
    type Error = InvalidMoney;
    fn try_from(code: String) -> Result<Self, InvalidMoney> {
        code.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount of money that is never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// An amount from its minor units (cents).
    ///
    /// # Errors
    ///
    /// [`InvalidMoney::Negative`] below zero.
    pub fn from_minor(minor: i64, currency: Currency) -> Result<Self, InvalidMoney> {
        if minor < 0 { Err(InvalidMoney::Negative) } else { Ok(Self { minor, currency }) }
    }

    /// Nothing of a currency.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Minor units (cents).
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Reads a decimal number exactly: `42`, `42.5`, `42.50` and `4.25e1` are the same amount of USD.
    ///
    /// # Errors
    ///
    /// The text is no JSON number, is negative, too large, or finer than the currency's minor unit.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, InvalidMoney> {
        let decimal = Decimal::parse(text)?;
        let digits = i32::from(currency.digits);
        // Shift the decimal point so that what is left of it counts minor units.
        let shift = decimal.exponent.checked_add(digits).ok_or(InvalidMoney::OutOfRange)?;
        let mut minor: i128 = decimal.significand;
        if decimal.significand == 0 {
            return Ok(Self::zero(currency));
        }
        for _ in 0..shift.unsigned_abs() {
            if shift > 0 {
                minor = minor.checked_mul(10).ok_or(InvalidMoney::OutOfRange)?;
            } else if minor % 10 == 0 {
                minor /= 10;
            } else {
                return Err(InvalidMoney::TooPrecise { text: text.to_owned(), digits: currency.digits, currency });
            }
        }
        let minor = i64::try_from(minor).map_err(|_range| InvalidMoney::OutOfRange)?;
        Self::from_minor(minor, currency)
    }

    /// The sum, or nothing when it does not fit or the currencies differ.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        if self.currency != other.currency {
            return None;
        }
        Some(Self { minor: self.minor.checked_add(other.minor)?, currency: self.currency })
    }

    /// The price of `quantity` pieces, or nothing when it does not fit.
    #[must_use]
    pub fn checked_mul(self, quantity: u32) -> Option<Self> {
        Some(Self { minor: self.minor.checked_mul(i64::from(quantity))?, currency: self.currency })
    }

    /// The amount as a JSON number with all digits of its currency: `42.50`.
    pub fn to_json_number(self) -> Box<RawValue> {
        // What Display prints is a JSON number by construction.
        RawValue::from_string(self.to_string()).unwrap_or_default()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.currency.unit();
        let width = usize::from(self.currency.digits);
        if width == 0 {
            return write!(f, "{}", self.minor);
        }
        write!(f, "{}.{:0width$}", self.minor / unit, self.minor % unit)
    }
}

/// A decimal number taken apart: `significand × 10^exponent`.
struct Decimal {
    significand: i128,
    exponent: i32,
}

impl Decimal {
    /// Longer texts are refused before any arithmetic.
    const TEXT_CHARS_MAX: usize = 40;

    fn parse(text: &str) -> Result<Self, InvalidMoney> {
        let invalid = || InvalidMoney::NotADecimal(text.chars().take(Self::TEXT_CHARS_MAX).collect());
        if text.len() > Self::TEXT_CHARS_MAX {
            return Err(invalid());
        }
        let (unsigned, negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i16>().map_err(|_text| invalid())?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || number.ends_with('.') {
            return Err(invalid());
        }
        let significand: i128 = format!("{whole}{fraction}").parse().map_err(|_text| InvalidMoney::OutOfRange)?;
        if negative && significand != 0 {
            return Err(InvalidMoney::Negative);
        }
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_length| invalid())?;
        Ok(Self { significand, exponent: i32::from(exponent) - fraction_digits })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn an_amount_prints_all_digits_of_its_currency() {
        let print = |minor, code| Money::from_minor(minor, currency(code)).unwrap().to_string();
        assert_eq!(print(4250, "USD"), "42.50");
        assert_eq!(print(5, "USD"), "0.05");
        assert_eq!(print(42, "JPY"), "42");
        assert_eq!(print(42_500, "BHD"), "42.500");
    }

    #[test]
    fn an_amount_is_read_exactly() {
        let read = |text, code| Money::parse(text, currency(code)).map(Money::minor);
        for text in ["42.5", "42.50", "42.500", "4.25e1", "425E-1"] {
            assert_eq!(read(text, "USD"), Ok(4250), "{text}");
        }
        assert_eq!(read("42", "USD"), Ok(4200));
        assert_eq!(read("0.1", "BHD"), Ok(100));
        assert_eq!(read("-0.0", "USD"), Ok(0));
        assert_eq!(read("92233720368547758.07", "USD"), Ok(i64::MAX));
        assert_eq!(read("92233720368547758.08", "USD"), Err(InvalidMoney::OutOfRange));
        assert_eq!(read("1e400", "USD"), Err(InvalidMoney::OutOfRange));
        assert_eq!(read("-1", "USD"), Err(InvalidMoney::Negative));
        assert!(matches!(read("10.005", "USD"), Err(InvalidMoney::TooPrecise { .. })));
        assert!(matches!(read("1.5", "JPY"), Err(InvalidMoney::TooPrecise { .. })));
        for text in ["", ".5", "5.", "NaN", "1,5", "0x1", "+1", " 1", "1e", "1_000"] {
            assert!(matches!(read(text, "USD"), Err(InvalidMoney::NotADecimal(_))), "{text:?}");
        }
    }

    #[test]
    fn arithmetic_never_wraps_and_never_mixes() {
        let usd = Money::from_minor(i64::MAX, currency("USD")).unwrap();
        assert_eq!(usd.checked_add(Money::from_minor(1, currency("USD")).unwrap()), None);
        assert_eq!(usd.checked_mul(2), None);
        assert_eq!(Money::zero(currency("USD")).checked_add(Money::zero(currency("EUR"))), None);
    }

    #[test]
    fn only_known_currencies_are_currencies() {
        assert!("usd".parse::<Currency>().is_err());
        assert!("ZZZ".parse::<Currency>().is_err());
        assert!("US".parse::<Currency>().is_err());
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(minor in 0..=i64::MAX, code in prop::sample::select(vec!["USD", "JPY", "BHD", "CLF"])) {
            let money = Money::from_minor(minor, currency(code)).unwrap();
            prop_assert_eq!(Money::parse(&money.to_string(), money.currency()), Ok(money));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,50}") {
            let _outcome = Money::parse(&text, currency("USD"));
        }
    }
}
